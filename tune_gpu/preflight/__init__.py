"""What must hold before anything starts: the memory of vLLM and Whisper on a device beside its neighbours, predicted.

`predict` one candidate, `predict_many` a whole space; `read_architecture` a model's folder; `CalibrationStore` keeps what real starts taught.
Imports no Ray, no torch and no vLLM.
"""

from tune_gpu.common.errors import UserError
from tune_gpu.preflight.architecture import ModelArchitecture, from_config, read_architecture
from tune_gpu.preflight.calibration import Calibration, CalibrationStore
from tune_gpu.preflight.cards import UnknownMemory, card_memory, cards, find_card, nvml_memory, this_card, this_node
from tune_gpu.preflight.predictor import predict
from tune_gpu.preflight.values import DeviceMemory, KvTokens, Prediction, Verdict
from tune_gpu.preflight.whisper_memory import whisper_mib

__all__ = [
    "Calibration", "CalibrationStore", "DeviceMemory", "KvTokens", "ModelArchitecture", "Prediction", "UnknownMemory", "UserError", "Verdict", "card_memory",
    "cards", "find_card", "from_config", "nvml_memory", "predict", "read_architecture", "this_card", "this_node", "whisper_mib",
]
