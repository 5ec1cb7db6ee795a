"""Steering inside vLLM: per request, in the compiled graph, with the gate in the engine. See docs/design/vllm.md."""
