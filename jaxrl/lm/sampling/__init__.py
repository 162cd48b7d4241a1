"""Completions of prompts, all at once or as they come."""

from jaxrl.lm.sampling.checks import check_prompts as check_prompts
from jaxrl.lm.sampling.generation import Generation as Generation
from jaxrl.lm.sampling.generation import generate as generate
from jaxrl.lm.sampling.generation import stream as stream
