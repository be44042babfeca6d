"""Predict the memory of vLLM and Whisper on a device beside its co-tenants, before anything starts.

`predict` one candidate, `predict_many` a whole space; `read_architecture` a model's folder; `CalibrationStore` keeps what real starts taught.
Imports no Ray, no torch and no vLLM.
"""

from tune_gpu.common.errors import UserError
from tune_gpu.evaluation.memory_check.cards import UnknownMemory, card_memory, cards, find_card, nvml_memory, this_card, this_node
from tune_gpu.services.faster_whisper.memory import whisper_mib
from tune_gpu.services.memory_values import DeviceMemory, KvTokens, MemoryVerdict, Prediction
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture, from_config, read_architecture
from tune_gpu.services.vllm.memory.calibration import Calibration, CalibrationStore
from tune_gpu.services.vllm.memory.predict import predict

__all__ = [
    "Calibration",
    "CalibrationStore",
    "DeviceMemory",
    "KvTokens",
    "MemoryVerdict",
    "ModelArchitecture",
    "Prediction",
    "UnknownMemory",
    "UserError",
    "card_memory",
    "cards",
    "find_card",
    "from_config",
    "nvml_memory",
    "predict",
    "read_architecture",
    "this_card",
    "this_node",
    "whisper_mib",
]
