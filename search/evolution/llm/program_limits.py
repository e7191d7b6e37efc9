"""The limits of the programs that a search takes from a model: one value for prompt and answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from veldt.search.config.search_config import SearchConfig
from veldt.search.language.statements import COPY, READABLE
from veldt.search.llm_text import answers, grammar
from veldt.search.llm_text.answers import Reading
from veldt.search.program import Program


@final
@dataclass(frozen=True, slots=True)
class ProgramLimits:
    """What a program may consist of: what mutations may insert, and what founders have.

    Attributes:
      instructions: Names of instructions.
      reads: Names that may be read besides variables.
      num_slots: Largest number of state slots.
      max_statements: Largest number of statements.
      num_programs: Largest number of programs of an answer.
    """

    instructions: tuple[str, ...]
    reads: tuple[str, ...]
    num_slots: int
    max_statements: int
    num_programs: int

    @classmethod
    def of(cls, config: SearchConfig, founders: Sequence[Program]) -> "ProgramLimits":
        """Return the limits of a search; without language models they are those of one program.

        Args:
          config: Config of the search.
          founders: Programs that the search starts from.
        """
        statements = [statement for one in founders for statement in one.statements]
        ops = [statement.op for statement in statements if statement.op != COPY]
        args = {arg for statement in statements for arg in statement.args}
        args |= {name for one in founders for name in one.returns}
        reads = [name for name in READABLE if name in args]
        return cls(
            tuple(dict.fromkeys((*config.mutation.instructions, *ops))),
            tuple(dict.fromkeys((*config.mutation.reads, *reads))),
            config.num_slots,
            config.mutation.max_statements,
            1 if config.llm is None else config.llm.num_programs,
        )

    def read(self, answer: str) -> Reading:
        """Return the programs of an answer."""
        return answers.read(
            answer,
            num_slots=self.num_slots,
            max_statements=self.max_statements,
            instructions=self.instructions,
            reads=self.reads,
            num_programs=self.num_programs,
        )

    def grammar(self) -> str:
        """Return the grammar of programs within the limits."""
        return grammar.gbnf(
            instructions=self.instructions,
            reads=self.reads,
            num_slots=self.num_slots,
            max_statements=self.max_statements,
        )
