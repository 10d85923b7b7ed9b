"""Kernels that choose rows: arrays or tensors in, positions out."""

from skal.selection._average_linkage import average_linkage
from skal.selection._bait import bait
from skal.selection._ball_cover import ball_cover, pure_radius
from skal.selection._batch_bald import batch_bald, mutual_information
from skal.selection._herding import herding
from skal.selection._k_center_greedy import k_center_greedy
from skal.selection._k_center_mip import k_center_mip, k_center_mip_subset
from skal.selection._kmeans_plusplus import kmeans_plusplus
from skal.selection._linkage_clusters import linkage_clusters
from skal.selection._nearest_distinct import nearest_distinct
from skal.selection._nearest_to_centroids import nearest_to_centroids
from skal.selection._predictive_information import predictive_information
from skal.selection._top_k import top_k
from skal.selection._typicality import typicality

__all__ = [
    "average_linkage",
    "ball_cover",
    "bait",
    "batch_bald",
    "herding",
    "k_center_greedy",
    "k_center_mip",
    "k_center_mip_subset",
    "kmeans_plusplus",
    "linkage_clusters",
    "mutual_information",
    "nearest_distinct",
    "nearest_to_centroids",
    "pure_radius",
    "predictive_information",
    "top_k",
    "typicality",
]
