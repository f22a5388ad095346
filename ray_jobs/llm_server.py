"""The replica that holds vLLM. Importing this imports vLLM."""

from collections.abc import AsyncIterator
from typing import Any

from pydantic import ValidationError
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.serve.llm import LLMServer
from ray.serve.llm.openai_api_models import ChatCompletionRequest


class OneProcess(VLLMEngine):
    """On a CPU, an engine of one worker that works in the engine's own process.

    Ray asks vLLM for workers in processes of their own there, whatever ``engine_kwargs`` say; the
    engine waits for them by spinning, which takes the worker's threads a core.
    """

    async def start(self) -> None:
        """Start it, without Ray's task on each node that fetches the model.

        The model is a folder, so the task would do nothing but import vLLM, while the engine waits.
        """
        if (callback := self.llm_config.get_or_create_callback()) is not None:
            callback.ctx.run_init_node = False
        await super().start()

    def _start_async_llm_engine(
        self, vllm_engine_args: Any, vllm_engine_config: Any, placement_group: Any
    ) -> Any:
        parallel = vllm_engine_config.parallel_config
        if parallel.distributed_executor_backend == "mp" and parallel.world_size == 1:
            parallel.distributed_executor_backend = "uni"
        return super()._start_async_llm_engine(
            vllm_engine_args, vllm_engine_config, placement_group
        )


class LlmServer(LLMServer):
    """Ray Serve's vLLM server, asked with plain dictionaries.

    Whoever asks with the protocol's own classes must import vLLM to make them: a process and
    half a minute more on a laptop.
    """

    _default_engine_cls = OneProcess

    async def ask(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """One answer, with ``reply``, ``error`` and ``tokens``, to ``messages``.

        A request that vLLM refuses (such as a prompt that is too long) has the reason in ``error``;
        an engine that dies raises.
        """
        try:
            chat = ChatCompletionRequest(
                messages=request["messages"], stream=False, **request["sampling_params"]
            )
        except ValidationError as error:
            yield {"reply": "", "error": f"vLLM refuses the request: {error}", "tokens": 0}
            return
        async for response in await self.chat(chat):
            yield _answer(response)
            return


def _answer(response: Any) -> dict[str, Any]:
    fault = getattr(response, "error", None)
    if fault is not None:
        return {"reply": "", "error": fault.message, "tokens": 0}
    reply = response.choices[0].message.content or ""
    tokens = response.usage.completion_tokens or 0
    return {"reply": reply, "error": "" if reply else "an empty reply", "tokens": tokens}
