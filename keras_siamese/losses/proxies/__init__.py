"""Proxy losses: y_true `(batch,)` is the class, y_pred `(batch, classes)` the cosines to learned class weights."""
