"""Uses what the journal recorded: decide again, submit a request again, submit recorded traffic again.

`decisions` runs the protocol's rules on recorded inputs and reports the first decision that differs.
`past_request` finds a past request and what is needed to submit it again.
`traffic` submits recorded requests with their recorded timing to a test stack.
"""
