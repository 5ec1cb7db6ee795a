"""How vLLM is started, as read from the section ``[vllm]`` of a configuration."""

from pydantic import BaseModel, ConfigDict, Field


class VllmOptions(BaseModel):
    """What the user can say of the engine; everything else follows from the model and the sampling settings.

    Args:
        gpu_memory: share of the GPU's memory for weights and cache. The transformers model stays open beside it, on the device of
            the configuration. On a CPU the cache is what VLLM_CPU_KVCACHE_SPACE says, in GiB.
        max_length: longest prompt with response, in tokens; 0 is the model's own limit, whose cache may not fit.
        enforce_eager: compile nothing, which starts in seconds and generates slower.
        tensor_parallel_size: GPUs that share each layer.
        neurons_per_layer, features_per_layer: room in each layer for what steerings change and gates read. A steering that needs
            more makes the engine start again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu_memory: float = Field(default=0.9, gt=0.0, le=1.0)
    max_length: int = Field(default=0, ge=0)
    enforce_eager: bool = False
    tensor_parallel_size: int = Field(default=1, ge=1)
    neurons_per_layer: int = Field(default=64, ge=0)
    features_per_layer: int = Field(default=64, ge=0)
