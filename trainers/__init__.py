"""Models that predict the graph's missing facts. One model a file, readable from top to bottom.

`MODELS` is the one table of what can be named in params.yaml; the contract test runs over all of it.
"""

MODELS = {  # name in params.yaml: module that trains it
    "adamf_mat": "trainers.models.adamf_mat",
    "adamf": "trainers.models.adamf",
    "mygo": "trainers.models.mygo",
    "momok": "trainers.models.momok",
    "transe": "trainers.models.transe",
    "distmult": "trainers.models.distmult",
    "cp": "trainers.models.cp",
    "rescal": "trainers.models.rescal",
    "complex": "trainers.models.complex",
    "rotate": "trainers.models.rotate",
    "tucker": "trainers.models.tucker",
    "mosaic": "trainers.models.mosaic",
}
