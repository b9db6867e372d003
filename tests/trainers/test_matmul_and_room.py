"""The choice of float32 products and of what is kept: exact, the same every time, and within its bounds."""

import pytest
import torch

from trainers import matmul, room

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _as_before():
    before = torch.get_float32_matmul_precision(), room.LIMIT
    yield
    torch.set_float32_matmul_precision(before[0])
    room.LIMIT = before[1]


@pytest.mark.parametrize("choice", ["auto", "plain", "tf32"])
def test_products_are_exact_in_float32_whatever_is_chosen(choice):
    used = matmul.use(choice, CPU)
    assert used in ("plain", "onednn")
    assert used == matmul.use(choice, CPU)
    left, right = (torch.randn(300, 700, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    torch.testing.assert_close((left @ right.T).double(), left.double() @ right.double().T, rtol=1e-5, atol=1e-3)


def test_onednn_is_taken_where_it_is_faster_and_exact_only(monkeypatch):
    monkeypatch.setattr(matmul, "_mkl_is_slow", lambda: True)
    monkeypatch.setattr(matmul, "_exact", lambda precision: True)
    assert matmul.use("auto", CPU) == "onednn"
    assert torch.get_float32_matmul_precision() == "medium"
    assert matmul.use("plain", CPU) == "plain"
    assert torch.get_float32_matmul_precision() == "highest"
    monkeypatch.setattr(matmul, "_exact", lambda precision: False)
    assert matmul.use("auto", CPU) == "plain"


@pytest.mark.parametrize(
    ("choice", "used", "precision"),
    [("auto", "plain", "highest"), ("plain", "plain", "highest"), ("tf32", "tf32", "high")],
)
def test_a_gpu_rounds_factors_only_where_tf32_is_asked_for(choice, used, precision, monkeypatch):
    monkeypatch.setattr(matmul, "_mkl_is_slow", lambda: True)  # which is the processor's business alone
    monkeypatch.setattr(matmul, "_exact", lambda precision: True)
    torch.set_float32_matmul_precision("medium")
    assert matmul.use(choice, torch.device("cuda")) == used
    assert torch.get_float32_matmul_precision() == precision
    assert torch.backends.cuda.matmul.allow_tf32 == (used == "tf32")


def test_rounded_products_are_noticed(monkeypatch):
    assert matmul._exact.__wrapped__("highest")
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda precision: rounding.append(precision))
    rounding: list[str] = []
    plain = torch.Tensor.__matmul__

    def product(left, right):
        low = rounding and rounding[-1] == "medium" and left.dtype == torch.float32
        return plain(left.bfloat16(), right.bfloat16()).float() if low else plain(left, right)

    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    assert not matmul._exact.__wrapped__("medium")


def test_what_may_be_kept_follows_the_key_or_the_free_memory(monkeypatch):
    room.keep_at_most(3)
    assert room.may_keep() == 3 << 20
    room.keep_at_most(None)
    monkeypatch.setattr(room, "_free", lambda: 1000)
    assert room.may_keep() == 250


def test_what_may_be_kept_on_a_gpu_follows_its_own_memory(monkeypatch):
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 300)
    monkeypatch.setattr(room, "_free", lambda: 40)
    room.keep_at_most(None)
    assert room.may_keep(gpu) == 300
    assert room.may_keep(CPU) == room.may_keep() == 10
    room.keep_at_most(3)
    assert room.may_keep(gpu) == 3 << 20


def test_a_containers_bound_counts_as_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(room, "_CGROUP", tmp_path)
    assert room._free() > 0
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    (tmp_path / "memory.stat").write_text("anon 350\ninactive_file 50\n")
    assert room._free() == 650
    (tmp_path / "memory.max").write_text("max\n")
    assert room._free() > 650
