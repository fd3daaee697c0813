"""Every GPU path of this project, checked and measured on one machine in at most nine minutes.

    supervisor ─▶ one worker process per group of steps ─▶ outcomes ─▶ report (table, JSON)

A group has a process of its own: what breaks the GPU's context, hangs or crashes ends that group and no other.
"""
