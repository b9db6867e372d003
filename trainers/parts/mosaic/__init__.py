"""The parts of `trainers/models/mosaic.py`: what besides a trained scorer says that an entity may be the answer."""
