"""The receipt of an entry of the audit log, for whoever has its leaf hash."""

from __future__ import annotations

from flask import Response

from kms.api.console.routes import page
from kms.api.console.visit import Visit
from kms.audit.proof import TlogProof
from kms.errors import AuthenticationFailed, Refusal


@page("/audit/receipt")
def receipt(visit: Visit) -> Response:
    """The proof that an entry is in the log, and its number."""
    leaf, proof, refusal = _leaf(visit), b"", None
    if leaf:
        try:
            proof = visit.run("audit_proof", leaf=leaf).body
        except AuthenticationFailed:
            raise
        except Refusal as error:
            refusal = error
    number = TlogProof.parse(proof).index if proof else None
    return visit.render("receipt.html", refusal, fields=("leaf",), leaf=leaf, proof=proof.decode(), number=number)


@page("/audit/receipt/file")
def receipt_file(visit: Visit) -> Response:
    """The proof as a file, byte by byte: what is copied from a page may miss its last line break."""
    answer = visit.run("audit_proof", leaf=_leaf(visit))
    headers = {"Content-Disposition": 'attachment; filename="receipt.txt"'}
    return Response(answer.body, 200, headers, content_type=answer.content_type)


def _leaf(visit: Visit) -> str:
    """The leaf hash that is asked for, which may be in base64 too, as unpadded base64url."""
    given = (visit.query.get("leaf") or "").strip()
    return given.replace("+", "-").replace("/", "_").rstrip("=")
