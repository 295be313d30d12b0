"""Training: recipes, options, the network, the learning rate,
and the run that writes it all down.
"""

from .margins import with_margins
from .network import (
    arch_name,
    describe_computing,
    describe_network,
    describe_parent,
    evaluate,
    load_parent,
    make_optimizer,
    prepare,
    prepare_training,
    take_class_means,
)
from .run import Run, StepLog
from .schedule import cosine_lr, learning_rate, set_lr
