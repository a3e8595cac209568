"""Diffusion models: models that draw images, by stable-diffusion.cpp.

library.py  its functions and structures, the only module that imports the library
model.py    a loaded model: one image at a time, with its steps and previews
"""

from llm_backend.engine.diffusion.model import DiffusionModel

__all__ = ["DiffusionModel"]
