"""Files to and from labelled Datasets: k-space, seismic lines, results, training images."""

from invdiff.io.mri import read_kspace
from invdiff.io.netcdf import from_netcdf_safe, to_netcdf_safe
from invdiff.io.result import check_output, open_result, write_result
from invdiff.io.seismic import (
    read_segy,
    read_survey,
    survey_arrays,
    survey_dataset,
    write_segy,
    write_survey,
)
from invdiff.io.training import ZarrBatches, training_fields
from invdiff.io.velocity import read_velocity
from invdiff.io.wavelet import read_wavelet

__all__ = [
    "ZarrBatches",
    "check_output",
    "from_netcdf_safe",
    "open_result",
    "read_kspace",
    "read_segy",
    "read_survey",
    "read_velocity",
    "read_wavelet",
    "survey_arrays",
    "survey_dataset",
    "to_netcdf_safe",
    "training_fields",
    "write_result",
    "write_segy",
    "write_survey",
]
