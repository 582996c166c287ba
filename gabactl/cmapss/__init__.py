"""NASA C-MAPSS turbofan data: files, windows, metrics and the downloader. Needs no torch.

Source: A. Saxena, K. Goebel, D. Simon, N. Eklund, "Damage Propagation Modeling for Aircraft
Engine Run-to-Failure Simulation", PHM08, Denver, 2008. The data are in the public domain.
"""

from __future__ import annotations

from gabactl.cmapss.files import SUBSETS, Engines, read_engines, read_rul, verify
from gabactl.cmapss.metrics import nasa_score, rmse
from gabactl.cmapss.windows import Cmapss, Normaliser, Windows, health_class, load

__all__ = [
    "SUBSETS",
    "Cmapss",
    "Engines",
    "Normaliser",
    "Windows",
    "health_class",
    "load",
    "nasa_score",
    "read_engines",
    "read_rul",
    "rmse",
    "verify",
]
