"""Images: named data sets and one's own, read once and given as batches on the device."""

from .batches import Batches, TrainingBatches, check_fits, flip_and_crop, normalise
from .find import (
    check_chain,
    find_source,
    id_place,
    is_there,
    lies_at,
    listed_path,
    local_path,
    missing_message,
    name_or_path,
    ood_names,
    outlier_name,
    where_to_get,
)
from .harmonise import harmonise
from .id_sets import check_classes, given_id, load_id, load_id_pair
from .leaks import Codes, Shared, compare, encode, find_exact, pixel_numbers
from .overlap import check_apart, count_used, describe_used
from .pictures import load_pictures
from .places import has_parts
from .reading import check_names, load, load_named, load_outliers, parse_ood
from .sets import (
    DATASETS,
    ID_SETS,
    IMAGENET_FOUR,
    IMAGENET_GROUPS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    MEAN,
    NO_DOWNLOAD,
    OOD_SETS,
    OPENOOD_GROUPS,
    OUTLIER_SETS,
    OUTLIERS,
    PHOTOGRAPHS,
    SHIFTED,
    SIX_SETS,
    SOURCES,
    STAND_INS,
    STATISTICS,
    STD,
    DataSet,
    ImageSet,
    make_set,
    outlier_statistics,
)
from .splits import Unsplit
from .statistics import assumed_statistics, channels, described_statistics, shown, typed_statistics
from .streaming import use_streaming
