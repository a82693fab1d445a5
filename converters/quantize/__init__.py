"""Quantising an exported artifact: records, surgery on the net, the gate, and the rescue.

What a format's own quantizer does stands in ``converters/targets``; which ranges it is given, whether the
result may be shipped, and what is tried before it is refused, stands here.
"""
