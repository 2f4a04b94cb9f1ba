"""Key policies in AWS's language: read once, then asked who may do what with a key. Nothing here reads the vault.

How to ask, where a key has the policy `text`:

    policy = parse(text, account)                    # cached; raises Malformed
    rules = policy.rules_for(Asked(...))             # once for a caller, an action and a source; may be kept
    decision = rules.decide(Circumstances(...))      # for each message, where `rules.settled` is None

`rules.settled` is the decision where no message can change it. `policy.needs_source` says whether the source address
matters at all, so that a cache need not tell addresses apart. `actions_for` says which actions an operation of ours
needs: all of them must be allowed, and one that is denied is enough to refuse. A decision whose effect is None says
that the policy does not speak of it.

An Allow here is no more than AWS's. It never stands for what an administrator has to grant (`keys:recover`,
`keys:export-plaintext`), which a Deny nevertheless takes away. What was asked by PATCH with a `policy` in it is
`PutKeyPolicy`, not `UpdateKeyDescription`: the operation has to say so.

Before a policy is kept, `policy.require_principals` and `policy.require_kept_by` check that it names who is there and
leaves its owner the way to change it.
"""

from kms.access.key_policy.actions import ACTIONS, OWNER_ONLY, actions_for
from kms.access.key_policy.asked import Asked, Circumstances
from kms.access.key_policy.decision import Decision, KeyPolicy, Rules, Statement
from kms.access.key_policy.document import LONGEST, parse
from kms.access.key_policy.malformed import Malformed

__all__ = [
    "ACTIONS",
    "LONGEST",
    "OWNER_ONLY",
    "Asked",
    "Circumstances",
    "Decision",
    "KeyPolicy",
    "Malformed",
    "Rules",
    "Statement",
    "actions_for",
    "parse",
]
