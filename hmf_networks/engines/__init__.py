from hmf_networks.engines.inferer import SliceSynthesisInferer
from hmf_networks.engines.trainer import ConditionalGANTrainer

__all__ = ["ConditionalGANTrainer", "SliceSynthesisInferer"]
