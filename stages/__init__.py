"""One short script per stage of dvc.yaml: reads params.yaml, calls pipeline/ or trainers/, writes outputs."""
