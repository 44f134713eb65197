"""Proxy losses: y_true `(batch,)` is the class, y_pred `(batch, classes)` the cosines to learned class weights.

Contract: the layer `keras_siamese.layers.ProxyLogits` owns the class weights and returns the cosines, so labels do not
enter the forward pass. After training, the encoder before that layer is used for verification. `SubCenterArcFaceLoss`
and `SoftTripleLoss` take several weights for each class, `(batch, classes, centers)`. Keras's mean over the batch
equals the value of pytorch-metric-learning.

    model = keras.Sequential([encoder, ProxyLogits(num_classes=1000)])
    model.compile("adam", loss=ArcFaceLoss(margin=0.5, scale=64))
    model.fit(x, labels)                                                # labels (n,) in 0 … 999
"""
