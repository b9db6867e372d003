"""Which requirement brings a distribution: directly, through others, through an extra of one, or nobody."""

from pathlib import Path

from benchmarks import install_size

GROUPS = {"mandatory": ["torch>=2", "pandas"], "ray": ["Ray[data]>=2.40"], "dev": ["pandas", "not_here"]}
BYTES = {"torch": 900_000_000, "pandas": 60_000_000, "numpy": 50_000_000, "ray": 70_000_000, "fsspec": 2_000_000,
         "pip": 10_000_000, "arrow": 100}  # fmt: skip
ASKED = {
    "torch": ["numpy", "windows-only; sys_platform == 'win32'", "pip; python_version < '3'"],
    "pandas": ["NumPy>=1.26"],
    "ray": ["fsspec; extra == 'data'", "pip; extra == 'serve'", "Arrow; extra == 'data'"],
    "arrow": ["ray"],
}


def test_each_distribution_is_named_with_whoever_asks_for_it_the_largest_first():
    found = install_size.sizes(GROUPS, BYTES, lambda name: ASKED.get(name, ()))
    assert [one.name for one in found][:3] == ["torch", "ray", "pandas"]
    by = {one.name: one.by for one in found}
    assert by["numpy"] == {"mandatory": ["torch", "pandas"], "dev": ["pandas"]}
    assert by["fsspec"] == by["arrow"] == {"ray": ["Ray"]}
    assert by["pip"] == {}


def test_the_table_leaves_small_ones_out_and_says_what_an_extra_adds():
    page = install_size.page(install_size.sizes(GROUPS, BYTES, lambda name: ASKED.get(name, ())), least=1)
    assert "| 50.0 | numpy | mandatory | pandas, torch |" in page
    assert "| 10.0 | pip | – | – |" in page
    assert "arrow" not in page
    assert "| mandatory | 1,010 | 0 |" in page
    assert "| ray | 72 | 72 |" in page
    assert "| dev | 110 | 0 |" in page
    assert page.endswith("| of the environment | 10 | 10 |\n")


def test_the_projects_own_requirements_are_read():
    groups = install_size.required(Path(install_size.__file__).parents[1] / "pyproject.toml")
    assert {"mandatory", "ray", "dev"} <= groups.keys()
    assert install_size.installed()["numpy"] > 1e6
