"""Every file that is read or written: regular files, within limits, whole or not at all, through no link.

Free of torch. Readers raise one sentence (`lsgm.errors.UserError`) for whatever a file holds; writers go by a
fresh temporary and a rename.
"""
