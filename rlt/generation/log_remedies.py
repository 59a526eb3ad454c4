"""Known ways for a vLLM server, or a training, to fail, and the sentence that helps. Data alone.

The words on the left are those of vLLM (up to 0.31), transformers, torch, safetensors and the operating
system. The first row that matches counts, so the particular ones are before the general ones. Settings are
those that every stage with servers reads.
"""

from __future__ import annotations

import re

_SHORTER = "lower max_completion_length or max_prompt_length, whose sum a server makes room for"
_MODEL_AGAIN = "download the model again"

REMEDIES: tuple[tuple[str, str], ...] = (
    # lengths and memory
    (r"greater than the derived max_model_len", f"{_SHORTER}, or take a model with a longer context"),
    (
        r"larger than the available KV cache memory|No available memory for the cache blocks",
        f"{_SHORTER}; or give it more memory: generation.gpu_memory_utilization or "
        "generation.tensor_parallel on GPUs, on a CPU the environment variable VLLM_CPU_KVCACHE_SPACE (GiB)",
    ),
    (
        r"less than desired (GPU|CPU) memory utilization|Free memory on device",
        "another process holds memory there (`nvidia-smi` names it): end it, or lower "
        "generation.gpu_memory_utilization",
    ),
    (
        r"less than requested memory for kv",
        "lower the environment variable VLLM_CPU_KVCACHE_SPACE (in GiB), or free host memory",
    ),
    (
        r"OutOfMemoryError|CUDA out of memory|HIP out of memory",
        "the GPU's memory does not suffice: use more GPUs, or smaller batches and lengths; of a server, "
        "raise generation.tensor_parallel or give generation.server_args=[--max-num-seqs,64]",
    ),
    (
        r"can't allocate memory|Cannot allocate memory|MemoryError|'[\w-]+': -9|exit code:? -9|SIGKILL",
        "host memory ran out, or somebody killed the process (see `dmesg`): free memory, or use fewer "
        "servers",
    ),
    (
        r"(/dev/shm|shm_open|[Ss]hared memory|shared_memory|Bus error|SIGBUS)",
        "/dev/shm is too small: in Docker give --shm-size=8g, else `mount -o remount,size=8G /dev/shm`",
    ),
    (r"No space left on device|Disk quota exceeded", "make room on that disk, then start again"),
    # limits of the machine
    (
        r"Too many open files",
        "raise the limit of open files: `ulimit -n 65536` in the shell that starts this",
    ),
    (
        r"can't start new thread|Resource temporarily unavailable|pthread_create failed",
        "raise the limit of processes: `ulimit -u unlimited` in the shell that starts this, or the "
        "container's --pids-limit",
    ),
    (
        r"Address already in use|EADDRINUSE",
        "another program listens at that port: give another generation.base_port, or 0 for free ones",
    ),
    (
        r"CUDA driver version is insufficient|no kernel image is available|driver .* too old",
        "this build of torch does not fit the GPU or its driver: install a newer driver, or a build for it",
    ),
    (
        r"Illegal instruction",
        "this CPU, or the virtual machine, lacks an instruction that this build of vLLM uses: give "
        "generation.dtype=float32, or a build for this CPU",
    ),
    # flags
    (
        r"unrecognized arguments|argument -[\w/ -]+: |expected (one|at least one) argument",
        "correct it in generation.server_args",
    ),
    (
        r"[Bb]float16 is only supported on GPUs|does not support (dtype|bfloat16|float16)|"
        r"dtype .* is not supported",
        "give another generation.dtype: float16 or float32",
    ),
    (
        r"divisible by tensor parallel size|World size .* is larger than|world_size .* is larger",
        "give a generation.tensor_parallel that divides the model's attention heads and vocabulary, at most "
        "the number of GPUs",
    ),
    (
        r"trust_remote_code|--trust-remote-code",
        "if you trust the code that comes with this model, give model.trust_remote_code=true",
    ),
    # the model
    (
        r"are not supported for now|does not recognize this architecture|has no vLLM implementation|"
        r"No model architectures are specified|Cannot find model module|should have a `?model_type`? key",
        "this vLLM does not know the model's kind: take another model, or generation.backend=transformers",
    ),
    (
        r"[Hh]ead[ _]?(size|dim)|attention backend",
        "vLLM cannot compute heads of that size here: take generation.backend=transformers, or another model",
    ),
    (
        r"[Uu]nknown quantization|quantization method|Cannot find the config file|"
        r"[Qq]uantiz|quant_method",
        "the method trains whole weights: give the model's folder without quantization, and no "
        "--quantization in generation.server_args",
    ),
    (
        r"SafetensorError|HeaderTo[ol]|InvalidHeader|MetadataIncompleteBuffer|incomplete metadata|"
        r"PytorchStreamReader|UnpicklingError|invalid load key",
        f"a file of weights is cut, or is a pointer that git-lfs did not replace: {_MODEL_AGAIN}",
    ),
    (
        r"Cannot find any model weights|No safetensors|no file named .*safetensors|Did not find any",
        "the model's folder holds no weights: give the folder that does, whole",
    ),
    (
        r"size mismatch|shape of|Attempted to load weight|weights were not initialized|"
        r"no module or parameter|exceeds dimension size",
        "the model's config.json does not fit its weights: take both from the same model",
    ),
    (
        r"[Tt]okenizer",
        "the model's folder lacks a tokenizer that can be read: put the tokenizer's files there",
    ),
    (
        r"valid JSON|JSONDecodeError|Expecting (value|property name)|Error parsing config",
        f"a JSON file of the model is damaged: {_MODEL_AGAIN}",
    ),
    (
        r"not a valid model identifier|LocalEntryNotFound|OfflineModeIsEnabled|couldn't connect to|"
        r"Invalid repository ID|Repo id must|RepositoryNotFound|is not a local folder|"
        r"cannot find the requested",
        "give the folder of a model that is there, or a Hub name; without network, only what was downloaded "
        "before can be named",
    ),
    # GPUs together
    (
        r"NCCL error|ncclSystemError|ncclUnhandledCudaError|ncclInternalError",
        "GPUs could not talk to each other: NCCL_DEBUG=INFO in the environment says why",
    ),
)
_COMPILED = tuple((re.compile(words), remedy) for words, remedy in REMEDIES)


def remedy_of(message: str) -> str | None:
    """Return what to do about an error message; None for one that is not known."""
    return next((remedy for words, remedy in _COMPILED if words.search(message)), None)
