"""Raw studies made ready: DICOM series, other formats, bias field, registration, regridding (extra `prepare`)."""
