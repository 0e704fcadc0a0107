from hmf_networks.engines.inferer import SliceSynthesisInferer
from hmf_networks.engines.trainer import ConditionalGANTrainer
from hmf_networks.engines.weight_average import WeightAverage

__all__ = ["ConditionalGANTrainer", "SliceSynthesisInferer", "WeightAverage"]
