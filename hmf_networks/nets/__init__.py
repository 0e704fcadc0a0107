from hmf_networks.nets.hmf_mambainr import HMFMambaINR

__all__ = ["HMFMambaINR"]
