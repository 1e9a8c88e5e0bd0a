"""The S3 server that other tests rely on."""

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.cluster.s3 import Credentials, S3Server


def test_credentials_are_checked_and_buckets_are_not_made_by_writing(s3_server: S3Server) -> None:
    s3_server.bucket("checked")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3_server.client(s3_server.reader).put_object(Bucket="checked", Key="a", Body=b"a")
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        s3_server.client(Credentials("nobody", "x")).list_objects_v2(Bucket="checked")
    with pytest.raises(ClientError, match="NoSuchBucket"):
        s3_server.client().put_object(Bucket="absent", Key="a", Body=b"a")


def test_a_second_writer_of_a_key_is_refused(s3_server: S3Server) -> None:
    s3_server.bucket("once")
    s3_server.client().put_object(Bucket="once", Key="a", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3_server.client().put_object(Bucket="once", Key="a", Body=b"second", IfNoneMatch="*")


@pytest.mark.parametrize("tls", [False, True])
def test_data_survives_an_outage(tls: bool) -> None:
    with S3Server(tls=tls) as server:
        server.bucket("kept")
        server.client().put_object(Bucket="kept", Key="a", Body=b"body")

        server.kill()
        with pytest.raises(BotoCoreError):
            server.client().get_object(Bucket="kept", Key="a")
        server.start()

        assert server.client().get_object(Bucket="kept", Key="a")["Body"].read() == b"body"
