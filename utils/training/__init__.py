"""Training: recipes, options, the network, the learning rate, and the run that writes it all down."""
from .network import (
    arch_name,
    describe_computing,
    describe_network,
    evaluate,
    image_size,
    load_parent,
    make_optimizer,
    prepare,
    prepare_training,
)
from .run import Clock, Run, StepLog
from .schedule import cosine_lr, set_lr
