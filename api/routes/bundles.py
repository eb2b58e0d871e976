"""Code that jobs bring: upload a folder once by its content's name, and see what is known of it."""

from typing import Annotated

from fastapi import Body, Path, Query

from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import PrincipalDep, ReadSession, ServiceDep, WriteSession
from xsam.api.http.queries import UploadQuery
from xsam.api.http.router import Router
from xsam.services.bundles import archive
from xsam.services.bundles import service as bundles
from xsam.services.bundles.schemas import BundleRead
from xsam.services.bundles.service import Origin

router = Router("/v1/bundles", "bundles")

BundleId = Annotated[
    str,
    Path(max_length=80, description="`sha256:` and the content's sum.", examples=["sha256:" + 64 * "0"]),
]


@router.route("GET", "/{bundle_id}", "Read a bundle", refuses=("not_found",))
def get_bundle(bundle_id: BundleId, session: ReadSession, principal: PrincipalDep) -> BundleRead:
    """Return what is known of a bundle that the caller's team has uploaded."""
    return BundleRead.model_validate(bundles.get(session, bundle_id, team=visible_team(principal, None)))


@router.route(
    "PUT",
    "/{bundle_id}",
    "Upload a bundle",
    refuses=("malformed_body", "request_timeout", "body_too_large", "unsupported_media_type", "storage_error"),
)
def upload_bundle(
    bundle_id: BundleId,
    content: Annotated[bytes, Body(media_type="application/octet-stream")],
    session: WriteSession,
    service: ServiceDep,
    principal: PrincipalDep,
    query: Annotated[UploadQuery, Query()],
) -> BundleRead:
    """Store a folder, a gzipped tar of plain files, under its content's name; sent again, it changes nothing.

    The name is `sha256:` and the SHA-256 of one line per file, sorted by path: the path, NUL, `x` or `-` (executable or
    not), NUL, the SHA-256 of its content in hexadecimal, and a line feed.
    """
    bundles.check_is_on(is_on=service.settings.allowed_code.takes_bundles)
    row = bundles.add(
        session,
        service.store,
        bundle_id,
        content,
        actor=principal,
        limits=archive.limits_of(service.settings.code),
        origin=Origin(query.commit, is_dirty=query.is_dirty),
    )
    return BundleRead.model_validate(row)
