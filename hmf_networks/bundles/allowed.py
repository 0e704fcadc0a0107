"""What a bundle may name without a finding: exact names, since a prefix leads through modules to anything.

Chosen from what configs of translation and segmentation bundles need. It is a filter and no proof: every name
that was found to run text, unpickle, fetch or write at will is taken out, or held to its arguments.
"""

import re

# Classes whose arguments are data. One capitalised name after a module: no way on to what that imported.
CLASSES = re.compile(
    r"(?:monai\.(?:transforms|networks\.nets|networks\.layers|losses|metrics|inferers|handlers|optimizers|data"
    r"|engines)(?:\.(?P<module>[a-z0-9_]+))?"
    r"|torch\.nn|torch\.nn\.parallel|torch\.optim|torch\.optim\.lr_scheduler|torch\.utils\.data"
    r"|ignite\.(?:handlers|metrics|engine)"
    r"|hmf_networks\.(?:nets|engines|metrics|(?:blocks|data|engines|transforms|outputs|reports|baselines)\.[a-z0-9_]+)"
    r")\.[A-Z][A-Za-z0-9]*"
)
# MONAI's own; one that it does not know it imports as a module, which would be a file of the bundle.
BARE_CLASSES = re.compile(r"[A-Z][A-Za-z0-9]*")

# Of those, by their last name: what calls what it is given, unpickles, fetches, or writes what it is told.
DANGEROUS = re.compile(
    r"Lambda|TorchVision|TorchIO|Workflow|Config(?:Parser|Item|Component|Expression)|ReferenceResolver"
    r"|ComponentLocator|ClearML|MLFlow|Logfile|ClassificationSaver|CSV|NumpyReader|PerceptualLoss|Hugging"
    r"|Persistent|LMDB|CacheNTrans|GDS|NPZ|Decathlon|MedNIST|Tcia|Triton|Trt|Algo|Runner|Gen$|Call(?:able|back)"
)

FUNCTIONS = {
    "torch.device",
    "monai.data.load_decathlon_datalist",
    "monai.handlers.from_engine",
    "monai.utils.set_determinism",
    "hmf_networks.baselines.trivial.fit_voxelwise_linear_on",
    "hmf_networks.baselines.cacrnet.estimate_loss",
    "hmf_networks.baselines.hinet.reconstruction_loss",
    "hmf_networks.data.label_maps.split_label_maps",
    *(f"hmf_networks.data.split.{name}" for name in ("load_or_split", "named_patients", "part_of")),
    *(f"hmf_networks.data.tasks.{name}" for name in ("each_task", "find_tasks", "shared_tasks")),
    "hmf_networks.engines.bundle_run.speak_clearly",
    "hmf_networks.engines.device.choose_device",
    *(
        f"hmf_networks.engines.handlers.{name}"
        for name in ("flat_then_linear", "losses", "shown_inputs", "shown_output")
    ),
    "hmf_networks.engines.memory.keep_freed_memory",
    "hmf_networks.engines.precision.is_mixed",
    *(f"hmf_networks.engines.weights.{name}" for name in ("measured_of", "trained_network")),
    "hmf_networks.transforms.expected_error.named_measure",
}

MODULES = {  # that a config may import, and as what; monai, torch and numpy are there without
    "glob": "glob",
    "ignite": "ignite",
    "json": "json",
    "math": "math",
    "monai": "monai",
    "numpy": "np",
    "os": "os",
    "sys": "sys",
    "torch": "torch",
    "torch.distributed": "dist",
}

NAMES_IN_MODULES = {  # what an expression may read or call of them
    *("torch.device", "torch.cuda.is_available", "torch.cuda.set_device", "torch.cuda.device_count"),
    *("torch.float16", "torch.bfloat16", "torch.float32", "torch.long", "torch.uint8", "torch.channels_last"),
    *("torch.nn.Sequential", "torch.nn.Sigmoid", "torch.nn.ReLU", "torch.sigmoid", "torch.softmax"),
    *(
        "dist.init_process_group",
        "dist.destroy_process_group",
        "dist.get_rank",
        "dist.get_world_size",
        "dist.is_initialized",
    ),
    *(
        "monai.handlers.from_engine",
        "monai.utils.set_determinism",
        "monai.data.list_data_collate",
        "monai.data.load_decathlon_datalist",
    ),
    *(
        "os.environ",
        "os.environ.get",
        "os.path.join",
        "os.path.exists",
        "os.path.basename",
        "os.path.dirname",
        "glob.glob",
    ),
    *("torch.ones", "torch.zeros", "torch.randn", "torch.utils.data.Subset", "monai.data.partition_dataset"),
    *(f"{np}.{name}" for np in ("np", "numpy") for name in ("arange", "array", "float32", "int32", "pi", "uint8")),
    *("math.pi", "math.ceil", "math.floor"),
    *(f"monai.utils.InterpolateMode.{name}" for name in ("AREA", "BICUBIC", "BILINEAR", "LINEAR", "NEAREST")),
    *(f"monai.utils.GridSampleMode.{name}" for name in ("BICUBIC", "BILINEAR", "NEAREST")),
    *(f"monai.utils.GridSamplePadMode.{name}" for name in ("BORDER", "REFLECTION", "ZEROS")),
    "sys.path.insert",
}

BUILTINS = {
    *("abs", "all", "any", "bool", "dict", "enumerate", "float", "int", "len", "list", "max", "min", "range"),
    *("reversed", "round", "set", "sorted", "str", "sum", "tuple", "zip"),
}

ATTRIBUTES = {  # of what a reference stands for, or of a value
    *("network", "type", "shape", "device", "dtype", "state", "epoch", "output", "max_epochs"),
    *("parameters", "to", "cuda", "cpu", "eval", "train", "run", "attach", "get", "items", "keys", "values"),
    *("split", "strip", "endswith", "startswith", "lower", "upper", "join", "append", "item"),
}

PICKLED = {  # what torch's files of tensors are built with
    "collections OrderedDict",
    *(f"torch._utils {name}" for name in ("_rebuild_tensor_v2", "_rebuild_parameter")),
    *(
        f"torch {kind}Storage"
        for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
    ),
    "torch.storage UntypedStorage",
    "torch Size",
    "torch device",
}

READERS = {  # that MONAI knows by name; any other it looks up as a class anywhere, and calls it
    *(None, "NibabelReader", "ITKReader", "PILReader", "NrrdReader", "PydicomReader"),
    *("nibabelreader", "itkreader", "pilreader", "nrrdreader", "pydicomreader"),
    *("NibabelWriter", "ITKWriter", "PILWriter"),
}

DATA_FILES = {
    ".json",
    ".yaml",
    ".yml",
    ".conf",
    ".md",
    ".txt",
    ".png",
    ".jpg",
    ".jpeg",
    ".gif",
    ".svg",
    ".onnx",
    ".csv",
}
WEIGHTS = {
    *(".pt", ".pth", ".ckpt", ".bin", ".ts", ".h5", ".safetensors"),
    *(".pkl", ".pickle", ".npy", ".npz", ".joblib"),
}
FILES_WITHOUT_ENDING = {"README", ".gitignore", "LICENSE", "NOTICE", "VERSION"}
