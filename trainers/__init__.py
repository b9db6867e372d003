"""Models that predict the graph's missing facts. One model a file, readable from top to bottom.

`MODELS` is the one table of what can be named in params.yaml; the contract test runs over all of it.
"""

MODELS = {  # name in params.yaml: module that trains it
    "adamf_mat": "trainers.adamf_mat",
    "adamf": "trainers.adamf",
    "mygo": "trainers.mygo",
    "momok": "trainers.momok",
    "transe": "trainers.transe",
    "distmult": "trainers.distmult",
    "complex": "trainers.complex",
    "rotate": "trainers.rotate",
    "tucker": "trainers.tucker",
}
