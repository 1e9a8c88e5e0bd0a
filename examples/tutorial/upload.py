"""`python upload.py FOLDER s3://BUCKET/PREFIX`: copy a folder into a bucket. S3 is the server's address."""

import os
import sys
from pathlib import Path

import boto3
from botocore.config import Config

folder, target = Path(sys.argv[1]), sys.argv[2].removeprefix("s3://")
bucket, _, prefix = target.partition("/")
client = boto3.client("s3", endpoint_url=os.environ.get("S3"), config=Config(s3={"addressing_style": "path"}))
for file in sorted(path for path in folder.rglob("*") if path.is_file()):
    client.upload_file(str(file), bucket, f"{prefix}/{file.relative_to(folder)}")
