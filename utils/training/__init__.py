"""Training: recipes, options, the network, the learning rate,
and the run that writes it all down.
"""

from .accumulate import parts
from .margins import load_validation, with_margins
from .network import (
    arch_name,
    check_given,
    describe_computing,
    describe_network,
    describe_parent,
    evaluate,
    load_given,
    load_parent,
    make_optimizer,
    note_chance,
    prepare,
    prepare_training,
    take_class_means,
    tell_error_before,
)
from .rehearsal import Rehearsal
from .run import Run
from .schedule import cosine_lr, learning_rate, set_lr
from .steps import StepLog
