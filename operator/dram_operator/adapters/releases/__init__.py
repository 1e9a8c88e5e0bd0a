"""The release repository: TUF metadata and targets in an S3 bucket, committed by one conditional write."""
