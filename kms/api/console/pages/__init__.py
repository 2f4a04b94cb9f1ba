"""The pages, each module those of one subject. They declare themselves as they are imported."""

import kms.api.console.pages.account
import kms.api.console.pages.approval_rules
import kms.api.console.pages.approvals
import kms.api.console.pages.audit
import kms.api.console.pages.audit_questions
import kms.api.console.pages.blast_radius
import kms.api.console.pages.client
import kms.api.console.pages.client_acts
import kms.api.console.pages.clients
import kms.api.console.pages.export
import kms.api.console.pages.grants
import kms.api.console.pages.groups
import kms.api.console.pages.health
import kms.api.console.pages.key
import kms.api.console.pages.key_acts
import kms.api.console.pages.keys
import kms.api.console.pages.new_key
import kms.api.console.pages.overview
import kms.api.console.pages.passkeys
import kms.api.console.pages.receipt
import kms.api.console.pages.revocations  # noqa: F401
