"""Messages of vLLM and its libraries about memory and other causes, each with its kind of failure and with advice.

They come from the `raise`, `assert` and `logger.error` statements of vLLM 0.8 to 0.32 (`v1/core/kv_cache_utils.py`, `v1/worker/*`, V0's
`worker/*`, `config/*`), of torch, Triton, NCCL and CTranslate2. A pattern has only words that do not change, so that a path, a flag or a
harmless warning with the word "memory" does not match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tune_gpu.common.failures import FailureKind

Version = tuple[int, int]

_WHISPER_MEMORY = "Lower vLLM's share, or take a smaller Whisper model or compute type int8."


@dataclass(frozen=True)
class Sentence:
    """One message."""

    pattern: re.Pattern[str]
    since: Version | None = None
    """First version of vLLM that prints it, counted from 0.8; None for a library's message."""
    last: Version | None = None
    """Last version that prints it; None if 0.32 does."""

    def printed_by(self, version: Version) -> bool:
        """Return True if that version of vLLM prints it. Any version may print a library's message."""
        return (self.since is None or version >= self.since) and (self.last is None or version <= self.last)


@dataclass(frozen=True)
class Group:
    """Messages of one meaning."""

    kind: FailureKind
    problem: str
    advice: str
    sentences: tuple[Sentence, ...]
    whisper: str = ""
    """Advice if Whisper prints it; empty if it is the same."""
    by_chance: bool = False
    """True for a general message. A specific one about the same failure is preferred."""

    def advice_for(self, service: str) -> str:
        """Return the advice in one sentence."""
        return self.whisper if service == "whisper" and self.whisper else self.advice

    def matches(self, text: str) -> bool:
        """Return True if a line, without its logger's prefix, contains one of the messages."""
        return any(sentence.pattern.search(text) for sentence in self.sentences)


def _vllm(pattern: str, since: Version = (0, 8), last: Version | None = None) -> Sentence:
    return Sentence(re.compile(pattern), since, last)


def _library(pattern: str) -> Sentence:
    return Sentence(re.compile(pattern))


_NOT_QUOTED = r"(?<![/\w'\"`-])"
"""No path and no quotation mark precedes a message."""
_RAISED = r"(?:^|: |\()(?:[A-Za-z_]\w*\.)*"
"""Modules precede the name of an exception, and before them stands nothing or another exception."""

WEIGHTS = Group(
    FailureKind.STARTUP_OOM,
    "the model's weights do not fit into the memory that is free",
    "Take a smaller or quantised model, or free the memory that others hold on the card.",
    (
        _vllm(r"Failed to load model - not enough GPU memory", since=(0, 13)),
        _vllm(r"Failed to create unquantized linear weights\. This may be caused by insufficient memory", since=(0, 11)),
        _vllm(r"the model is too large for the current device's HBM memory", since=(0, 10), last=(0, 13)),
    ),
)

DEVICE_MEMORY = Group(
    FailureKind.STARTUP_OOM,
    "out of memory on the device",
    "Lower gpu_memory_utilization or max_num_seqs, or take a smaller model.",
    (
        _library(_RAISED + r"OutOfMemoryError\b(?=: |$|\))"),
        _library(_NOT_QUOTED + r"(?:CUDA|HIP|XPU|MPS backend) out of memory\b"),
        _library(_NOT_QUOTED + r"(?:CUDA|HIP|XPU|NPU)(?: driver)? [Ee]rror:? out of memory\b"),
        _library(_NOT_QUOTED + r"(?:CUDA|HIP)(?: call)? failed with error (?:CUDA_ERROR_OUT_OF_MEMORY|out of memory)\b"),  # CTranslate2
        _library(r"Triton Error \[\w+\]: out of memory\b"),
        _library(r"C[uU][dD][aA] failure (?:\d+ )?'out of memory'"),  # NCCL
        _library(r"Failed to CUDA (?:malloc|calloc|host alloc)"),  # NCCL
        _library(_NOT_QUOTED + r"CUDA_ERROR_OUT_OF_MEMORY\b|" + _NOT_QUOTED + r"(?:cuda|hip)Error(?:MemoryAllocation|OutOfMemory)\b"),
        _library(r"\b(?:CU|HIP)BLAS_STATUS_ALLOC_FAILED\b|\bCUDNN_STATUS_(?:ALLOC_FAILED|INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED)\b"),
        _library(r"\bUR_RESULT_ERROR_OUT_OF_(?:DEVICE|HOST)_MEMORY\b|\bUR error: .*out of memory"),  # Intel
        # torch queries NVML for the processes while it composes its out-of-memory error. The query fails where NVML does not list them
        # (Jetson, MIG, a container).
        _library(r"NVML_SUCCESS == .{0,200}INTERNAL ASSERT FAILED at .{0,400}CUDACachingAllocator\.cpp"),
    ),
    whisper=_WHISPER_MEMORY,
    by_chance=True,
)

GROUPS = (
    Group(
        FailureKind.PORT_CONFLICT,
        "another process has the port",
        "Try again, which takes another port, or end the process that has this one.",
        (_library(r"[Aa]ddress already in use"),),
    ),
    Group(
        FailureKind.STARTUP_NO_KV_MEMORY,
        "the share leaves no room for one sequence's cache blocks",
        "Raise gpu_memory_utilization, or lower max_model_len.",
        (
            _vllm(r"No available memory for the cache blocks"),
            _vllm(r"To serve at least one request with the models?'s max seq len"),
            _vllm(r"max seq len \(\d+\) is larger than the maximum number of tokens that can be stored in KV cache", last=(0, 10)),
            _vllm(r"requested memory for kv \((?:-|0(?:\.0+)?/)", since=(0, 20)),
            _vllm(r"Cannot auto-fit max_model_len: not enough GPU memory", since=(0, 14)),
            _vllm(r"Failed to initialize q/k/v range constants\. This may be caused by insufficient memory", since=(0, 11), last=(0, 14)),
        ),
    ),
    Group(
        FailureKind.STARTUP_NO_KV_MEMORY,
        "the share has fewer cache blocks than sequences",
        "Lower max_num_seqs, or raise gpu_memory_utilization.",
        (_vllm(r"max_num_seqs \(\d+\) exceeds available Mamba cache blocks", since=(0, 20)),),
    ),
    Group(
        FailureKind.STARTUP_NO_KV_MEMORY,
        "decoding video on the device leaves no room for cache blocks",
        "Lower mm_ipc_gpu_memory_gb, or raise gpu_memory_utilization.",
        (_vllm(r"frontend multimodal GPU decoding reserves", since=(0, 25)),),
    ),
    Group(
        FailureKind.STARTUP_NO_KV_MEMORY,
        "the share is smaller than the weights that another process has loaded for it",
        "Raise gpu_memory_utilization.",
        (_vllm(r"Externally held weights on device .* exceed the desired GPU memory utilization", since=(0, 32)),),
    ),
    Group(
        FailureKind.STARTUP_OOM,
        "the share asks for more than is free",
        "Lower gpu_memory_utilization, or free the memory that others hold.",
        (
            _vllm(r"on startup is less than desired GPU memory utilization", since=(0, 9)),
            _vllm(r"on startup is less than desired CPU memory utilization", since=(0, 20)),
            _vllm(r"on startup is less than the engine's budget after excluding", since=(0, 32)),
            _vllm(r"requested memory for kv \(\d[\d.]*/", since=(0, 20)),
        ),
    ),
    Group(
        FailureKind.STARTUP_OOM,
        "the requested cache is larger than the free memory",
        "Lower kv_cache_memory_bytes or VLLM_CPU_KVCACHE_SPACE, or free the memory that others hold.",
        (_vllm(r"requested memory for kv \(\d[\d.]* GiB\)", since=(0, 20)),),
    ),
    Group(
        FailureKind.STARTUP_OOM,
        "out of memory in the warm-up of the sampler or the pooler",
        "Lower max_num_seqs.",
        (_vllm(r"out of memory occurred when warming up sampler"), _vllm(r"out of memory occurred when warming up pooler", since=(0, 9))),
    ),
    Group(
        FailureKind.MEASUREMENT_INVALID,
        "another process freed memory while vLLM measured the free memory",
        "Try again while nothing else starts or ends on the card.",
        (_vllm(r"Error in memory profiling\. Initial free memory"), _vllm(r"Error in memory profiling\. Initial used memory", last=(0, 10))),
    ),
    WEIGHTS,
    Group(
        FailureKind.STARTUP_OOM,
        "the host has too little memory",
        "Free memory of the host, widen its limit, or lower swap_space and cpu_offload_gb.",
        (
            _vllm(r"Too large swap space\. ", last=(0, 17)),
            _vllm(r"HiSparse pinned host pool needs ~", since=(0, 30)),
            _library(r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)"),
            _library(r"[Cc]annot allocate memory(?! in static TLS block)"),
            _library(_RAISED + r"_?(?:Array)?MemoryError(?:$|: (?!Not enough space in the data buffer))"),
            _library(r"(?<![/\w])std::bad_alloc\b|: bad allocation$"),
            _library(r"\b(?:mkl_malloc|aligned_alloc|posix_memalign): failed to allocate memory"),
            _library(r"[Tt]ask was killed due to the node running low on memory"),  # Ray
        ),
        whisper="Free memory of the host or widen its limit, or take a smaller Whisper model.",
    ),
    DEVICE_MEMORY,
)
"""The first match decides, so specific groups stand before general ones."""

_CONFIGURATION = "Correct the setting that the evidence names; more or less memory will not help."
HINTS = (
    Group(
        FailureKind.STARTUP_CRASH,
        "it was killed",
        "Free memory of the host or widen its limit, or see in the kernel's log what ended it.",
        (_library(r"\bended by signal 9\b|Failed core proc\(s\): \{[^}]*: -9\b|^Killed$|: line \d+: +\d+ Killed\b"),),
    ),
    Group(
        FailureKind.STARTUP_CRASH,
        "this version does not know the model",
        "Install a version that knows the model, or take another model.",
        (
            _vllm(r"Model architectures \[.*\] (?:are not supported|failed to be inspected)"),
            _library(r"does not recognize this architecture|Unsupported model binary version"),
        ),
    ),
    Group(
        FailureKind.STARTUP_CRASH,
        "the card lacks what a setting needs",
        "Choose another dtype, compute type, quantisation or backend, which this card has.",
        (
            _vllm(r"is not supported for the current GPU|Minimum capability: \d+|is only supported on GPUs with compute capability"),
            _library(r"requires GPUs with sm\d+|Requested \w+ compute type, but the target device"),
        ),
    ),
    Group(
        FailureKind.STARTUP_CRASH,
        "the service sees no card",
        "Install the card's driver, or let the service see the card (in a container --gpus).",
        (
            _vllm(r"Failed to infer device type"),
            _library(r"Found no NVIDIA driver|[Nn]o CUDA GPUs are available|no CUDA-capable device is detected"),
        ),
    ),
    Group(
        FailureKind.STARTUP_CRASH,
        "the context is longer than the model's",
        "Lower max_model_len to what the model has.",
        (_vllm(r"max_model_len \(\d+\) is greater than the derived max_model_len"),),
    ),
    Group(
        FailureKind.STARTUP_CRASH,
        "a setting is wrong, or contradicts another",
        _CONFIGURATION,
        (
            _vllm(r"max_num_batched_tokens \(\d+\) (?:is smaller than max_model_len|must be greater than or equal to max_num_seqs)"),
            _vllm(r"is larger than max_num_batched_tokens|cannot be greater than the max_model_len"),
            _vllm(r"must be divisible by tensor parallel size|World size \(\d+\) is larger than the number of available GPUs"),
            _vllm(r"GPU memory utilization must be less than 1\.0|gpu_memory_utilization\b.*less than or equal to 1"),
            _vllm(r"is not supported for quantization method|does not match the quantization method"),
        ),
    ),
    Group(
        FailureKind.STARTUP_CRASH,
        "the shared memory of the host is too small",
        "Enlarge /dev/shm (in a container --shm-size or --ipc=host).",
        (
            _vllm(r"Insufficient space in \S+(?: for .*)?: .* MiB required", since=(0, 27)),
            _library(r"Error while creating shared memory segment|unable to open shared memory object .*No space left|No space left on device.*/dev/shm|/dev/shm.*No space left on device"),
        ),
    ),
    Group(
        FailureKind.STARTUP_CRASH,
        "the installation does not fit this card",
        "Install a vLLM, torch or CUDA toolkit that is built for this card and its driver.",
        (
            _library(r"no kernel image is available for execution|Unsupported gpu architecture|No supported CUDA architectures found"),
            _library(r"CUDA driver version is insufficient|The NVIDIA driver on your system is too old|PTX was compiled with an unsupported toolchain"),
            _library(r"[Nn]ot compiled with CUDA (?:support|enabled)|(?:CUDA|HIP) error: invalid device function"),
            _library(r"ptxas fatal\s*: Value '\w+' is not defined for option 'gpu-name'"),
        ),
    ),
    Group(
        FailureKind.STARTUP_CRASH,
        "a library is missing or does not fit the others",
        "Install the library that the evidence names, in a version that fits the others.",
        (
            _library(r"cannot open shared object file|undefined symbol|: version `\S+' not found|No module named|is not found or cannot be loaded|fatal error: \S+\.h\b"),
            _library(r"Failed to find C compiler|cannot import name|Unable to load any of \{|cannot allocate memory in static TLS block"),
        ),
    ),
    Group(
        FailureKind.STARTUP_CRASH,
        "the model cannot be read",
        "Check the model's name, its files and the access to them.",
        (
            _library(r"Cannot find any model weights|is not a valid model identifier|couldn't connect to|Repository Not Found|gated repo"),
            _library(r"\b(?:RepositoryNotFound|GatedRepo|HFValidation|LocalEntryNotFound|RevisionNotFound)Error\b|Invalid repository ID or local directory"),
            _library(r"Unable to open file '\S+' in model|Invalid model size|does not appear to have a file named|Can't load (?:the )?(?:configuration|tokenizer|model|feature extractor|image processor|processor)\b"),
        ),
    ),
    Group(
        FailureKind.STARTUP_CRASH,
        "a setting is refused",
        _CONFIGURATION,
        (_library(r"\d+ validation errors? for \w+|^[\w./ -]+: error: (?:argument |unrecognized arguments|the following arguments)"),),
    ),
)
"""Causes other than memory, with their own advice. The first match decides."""

DEFAULT_ADVICE = {
    FailureKind.STARTUP_NO_KV_MEMORY: "Raise gpu_memory_utilization, or lower max_model_len.",
    FailureKind.STARTUP_OOM: DEVICE_MEMORY.advice,
    FailureKind.OOM: DEVICE_MEMORY.advice,
    FailureKind.OOM_KILLED: "Free memory of the host, widen the limit of its cgroup, or take a smaller model or cache.",
    FailureKind.PORT_CONFLICT: "Try again, which takes another port, or end the process that has this one.",
    FailureKind.MEASUREMENT_INVALID: "Try again while nothing else runs on the card.",
    FailureKind.STARTUP_CRASH: "Correct what the evidence names; more or less memory will not help.",
    FailureKind.SERVICE_LOST: "Read the lines before the evidence in the service's log, and try again.",
    FailureKind.STARTUP_TIMEOUT: "Raise start_timeout_s, or see in the log what the start waits for.",
}
"""Advice for failures without a matching message."""


def find_group(text: str) -> Group | None:
    """Return the group of a line about memory or the port, or None."""
    return next((group for group in GROUPS if group.matches(text)), None)


def find_hint(text: str) -> Group | None:
    """Return the group of a line about another cause, or None."""
    return next((group for group in HINTS if group.matches(text)), None)
