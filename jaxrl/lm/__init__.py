"""Language models: parameters in and out, exact log-probabilities, sampling, adapters."""

from jaxrl.lm.complete import complete as complete
from jaxrl.lm.generate import Generation as Generation
from jaxrl.lm.generate import generate as generate
from jaxrl.lm.generate import stream as stream
from jaxrl.lm.log_probs import TokenStats as TokenStats
from jaxrl.lm.log_probs import completion_stats as completion_stats
from jaxrl.lm.log_probs import per_token_log_probs as per_token_log_probs
from jaxrl.lm.settings import LMConfig as LMConfig
from jaxrl.lm.transformer import LanguageModel as LanguageModel
from jaxrl.lm.transformer import ModelConfig as ModelConfig
from jaxrl.lm.transformer import language_model as language_model
from jaxrl.lm.weights import Pretrained as Pretrained
from jaxrl.lm.weights import load as load
from jaxrl.lm.weights import save as save
