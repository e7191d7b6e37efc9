"""The config of language models that propose programs beside the mutations.

Nothing here holds a secret: keys are named by environment variables, and only the process that
drives the search reads them. Configs are stored with a run and shown in reports.
"""

import re
import urllib.parse
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, final

from veldt.tasks.common.config import bounds

Plain: TypeAlias = bool | int | float | str | None
Parameter: TypeAlias = bool | int | float | str | tuple[Plain, ...] | dict[str, Plain] | None
"""What one field of a request may hold."""

BLIND: Final = "mutation"
"""The name of the choice that no model is asked."""
MANUAL: Final = "manual"
MOST_PROGRAMS: Final = 4
# What may differ when a run is resumed: where answers come from, and how much may be asked.
LIMITS: Final = (
    "max_calls",
    "max_tokens_total",
    "max_cost",
    "parallel",
    "timeout_s",
    "patience_s",
    "max_tries",
    "manual",
    "offline",
    "replay",
    "show_prompt",
)
PLACES: Final = ("url", "key_env", "headers_env", "input_price", "output_price")
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.:/@-]{0,59}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET: Final = re.compile(r"key|token|secret|password|signature|\bsig\b", re.IGNORECASE)


@final
@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A language model behind an endpoint that speaks OpenAI's chat API.

    Attributes:
      name: Name of the model in the store, in reports and among the mutations.
      url: Base of the endpoint's addresses, such as http://localhost:11434/v1; the path
        /chat/completions is added.
      model: Name of the model for the endpoint; empty for `name`.
      share: Relative odds of the model among all models.
      key_env: Environment variable with the key, which is sent as a bearer token; null sends none.
      headers_env: Further headers, each with the environment variable of its value.
      temperature: Temperature of sampling; null leaves it to the endpoint.
      max_tokens: Largest number of tokens of one answer.
      params: Further fields of each request, such as top_p; null leaves out a field that is sent
        otherwise.
      grammar: Grammar of programs sent with each request, in the form of that server: none,
        llama_cpp or vllm.
      input_price: Price of a million tokens of prompts, in any currency; null where it is not
        known.
      output_price: Price of a million tokens of answers; null where it is not known.
    """

    name: str
    url: str = ""
    model: str = ""
    share: float = 1.0
    key_env: str | None = None
    headers_env: dict[str, str] = field(default_factory=dict)
    temperature: float | None = 1.0
    max_tokens: int = 2000
    params: dict[str, Parameter] = field(default_factory=dict)
    grammar: Literal["none", "llama_cpp", "vllm"] = "none"
    input_price: float | None = None
    output_price: float | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name == BLIND:
            raise ValueError(
                f"the model's name {self.name!r} cannot be used: up to 60 letters, digits and "
                f"._:/@- are allowed, and {BLIND!r} is taken"
            )
        if self.url:
            _check_url(self.name, self.url)
        for variable in (self.key_env, *self.headers_env.values()):
            if variable is not None and not _VARIABLE.fullmatch(variable):
                raise ValueError(
                    f"model {self.name}: key_env and headers_env name environment variables, not "
                    "what they hold; one of them is no such name"
                )
        for header in self.headers_env:
            if not re.fullmatch(r"[A-Za-z0-9-]+", header):
                raise ValueError(f"model {self.name}: {header!r} is no name of a header")
        if self.temperature is not None and not 0 <= self.temperature <= 5:
            raise ValueError(
                f"model {self.name}: temperature is {self.temperature}; it must be 0 to 5"
            )
        bounds.above(self, 0, "share")
        bounds.at_least(self, 1, "max_tokens")
        bounds.at_least(self, 0, "input_price", "output_price")

    @property
    def has_prices(self) -> bool:
        """Whether both prices are known."""
        return self.input_price is not None and self.output_price is not None

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the price of so many tokens; what has no price costs nothing."""
        million = 1e6
        return (
            prompt_tokens * (self.input_price or 0.0)
            + completion_tokens * (self.output_price or 0.0)
        ) / million


@final
@dataclass(frozen=True, slots=True)
class LlmConfig:
    """Language models that propose programs; one of `models`, `manual` and `replay` is needed.

    Attributes:
      models: Models that are asked; for `manual` it may be empty.
      share: Largest share of the proposals that are the models'.
      num_programs: Number of programs that one call asks for, 1 to 4.
      lead: Number of proposals between a call and the proposals that its answer makes, at least
        `window`; null takes four windows. A longer lead hides slower answers and uses older
        results.
      max_calls: Largest number of calls; null sets no limit.
      max_tokens_total: Largest number of tokens of all prompts and answers; null sets no limit.
      max_cost: Largest price of all calls, in the currency of the models' prices, all of which it
        needs; null sets no limit.
      choice: Choice of the model for a call: by lot from the models' shares, or by a bandit, which
        chooses between the models and blind mutation by what each gained (`arm_choice.py`).
      steps_per_token: Number of training steps that a token counts as in the bandit.
      parallel: Largest number of requests under way at a time.
      timeout_s: Seconds that one request may take, until the whole answer is there.
      patience_s: Seconds that one call may take, with all tries and pauses.
      max_tries: Largest number of tries of one request.
      about: Words about the tasks for the models; empty for none.
      templates: Folder with templates of prompts; null takes the shipped ones.
      manual: Folder in which prompts are written and answers awaited as files, for a chat window or
        an agent; null asks the endpoints.
      offline: Whether answers come from stores alone, without any network.
      replay: Run directory from whose store the answers come, without any network; null for none.
      show_prompt: Whether the command prints the first prompt and ends.
    """

    models: tuple[ModelConfig, ...] = ()
    share: float = 0.2
    num_programs: int = 2
    lead: int | None = None
    max_calls: int | None = None
    max_tokens_total: int | None = None
    max_cost: float | None = None
    choice: Literal["shares", "bandit"] = "shares"
    steps_per_token: float = 0.0
    parallel: int = 8
    timeout_s: float = 120.0
    patience_s: float = 600.0
    max_tries: int = 4
    about: str = ""
    templates: str | None = None
    manual: str | None = None
    offline: bool = False
    replay: str | None = None
    show_prompt: bool = False

    def __post_init__(self) -> None:
        names = [model.name for model in self.models]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"llm.models: {twice[0]} is named twice")
        if not self.models and self.manual is None:
            raise ValueError(
                "llm.models is empty; name a model with its url, or set llm.manual for answers "
                "from files"
            )
        if self.manual is None and not self.is_offline:
            for model in self.models:
                if not model.url:
                    raise ValueError(f"llm.models: {model.name} has no url")
        if not 0 < self.share <= 1:
            raise ValueError(f"llm.share is {self.share}; it is a share, above 0 and at most 1")
        if not 1 <= self.num_programs <= MOST_PROGRAMS:
            raise ValueError(
                f"llm.num_programs is {self.num_programs}; it must be 1 to {MOST_PROGRAMS}"
            )
        if self.max_cost is not None and (
            unpriced := [model.name for model in self.asked if not model.has_prices]
        ):
            raise ValueError(
                f"llm.max_cost needs the prices of all models, and {unpriced[0]} has none: set "
                "input_price and output_price"
            )
        bounds.at_least(self, 1, "parallel", "max_tries")
        bounds.at_least(
            self, 0, "max_calls", "max_tokens_total", "max_cost", "lead", "steps_per_token"
        )
        bounds.above(self, 0, "timeout_s", "patience_s")

    @property
    def asked(self) -> tuple[ModelConfig, ...]:
        """The models that are asked: those of `models`, or one by hand."""
        return self.models or (ModelConfig(MANUAL),)

    @property
    def is_offline(self) -> bool:
        """Whether no answer comes from outside."""
        return self.offline or self.replay is not None

    @property
    def every(self) -> int:
        """The number of proposals between two calls."""
        return max(round(self.num_programs / self.share), self.num_programs)

    def model(self, name: str) -> ModelConfig:
        """Return the model with a name."""
        return next(model for model in self.asked if model.name == name)

    def lead_of(self, window: int) -> int:
        """Return the number of proposals between a call and its answer's, for a search's window."""
        return 4 * window if self.lead is None else self.lead


def _check_url(name: str, url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise ValueError(f"model {name}: the url must be http://HOST/PATH or https://HOST/PATH")
    queried = urllib.parse.parse_qsl(parts.query)
    if parts.username is not None or any(_SECRET.search(key) for key, _ in queried):
        raise ValueError(
            f"model {name}: the url holds a key or a password, and configs are stored with the "
            "run; name an environment variable by key_env or headers_env instead"
        )
    if parts.fragment or any(ord(letter) <= ord(" ") for letter in url):
        raise ValueError(f"model {name}: the url must have no spaces and no fragment (#...)")
