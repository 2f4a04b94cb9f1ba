"""The receipt of an entry of the audit log, for whoever has its leaf hash."""

from __future__ import annotations

from flask import Response

from kms.api.console.routes import page
from kms.api.console.visit import Visit
from kms.audit.proof import TlogProof
from kms.errors import AuthenticationFailed, Refusal


@page("/audit/receipt")
def receipt(visit: Visit) -> Response:
    """The proof that an entry is in the log, and its number; the leaf hash may be in base64 or base64url."""
    leaf = (visit.query.get("leaf") or "").strip().replace("+", "-").replace("/", "_").rstrip("=")
    proof, refusal = "", None
    if leaf:
        try:
            proof = visit.run("audit_proof", leaf=leaf).body.decode()
        except AuthenticationFailed:
            raise
        except Refusal as error:
            refusal = error
    number = TlogProof.parse(proof.encode()).index if proof else None
    return visit.render("receipt.html", refusal, fields=("leaf",), leaf=leaf, proof=proof, number=number)
