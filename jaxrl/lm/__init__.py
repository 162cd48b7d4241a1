"""Language models: parameters in and out, exact log-probabilities, sampling, adapters."""

from jaxrl.lm.completion import complete as complete
from jaxrl.lm.log_probs import TokenStats as TokenStats
from jaxrl.lm.log_probs import completion_stats as completion_stats
from jaxrl.lm.log_probs import per_token_log_probs as per_token_log_probs
from jaxrl.lm.pretrained.adapters import save_adapters as save_adapters
from jaxrl.lm.pretrained.weights import Pretrained as Pretrained
from jaxrl.lm.pretrained.weights import load_adapter as load_adapter
from jaxrl.lm.pretrained.weights import load_model as load_model
from jaxrl.lm.pretrained.weights import load_tokenizer as load_tokenizer
from jaxrl.lm.pretrained.weights import save_model as save_model
from jaxrl.lm.sampling import Generation as Generation
from jaxrl.lm.sampling import generate as generate
from jaxrl.lm.sampling import stream as stream
from jaxrl.lm.settings import LMConfig as LMConfig
from jaxrl.lm.settings import ModelParallel as ModelParallel
from jaxrl.lm.settings import Sampling as Sampling
from jaxrl.lm.transformer import LanguageModel as LanguageModel
from jaxrl.lm.transformer import ModelConfig as ModelConfig
from jaxrl.lm.transformer import language_model as language_model
