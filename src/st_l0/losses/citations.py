"""BibTeX of the papers behind the regularizers."""

FLOPS = """
@inproceedings{paria2020minimizing,
    title={Minimizing {FLOPs} to Learn Efficient Sparse Representations},
    author={Paria, Biswajit and Yeh, Chih-Kuan and Yen, Ian E. H. and Xu, Ning and Ravikumar, Pradeep and
        P{\\'o}czos, Barnab{\\'a}s},
    booktitle={International Conference on Learning Representations},
    year={2020},
    url={https://arxiv.org/abs/2004.05665},
}
"""

L0 = """
@inproceedings{shen2025exploring,
    title={Exploring $\\ell_0$ Sparsification for Inference-free Sparse Retrievers},
    author={Shen, Xinjie and Geng, Zhichao and Yang, Yang},
    booktitle={Proceedings of SIGIR},
    year={2025},
    url={https://arxiv.org/abs/2504.14839},
}
"""

IDF_AWARE_FLOPS = """
@misc{geng2024towards,
    title={Towards Competitive Search Relevance For Inference-Free Learned Sparse Retrievers},
    author={Geng, Zhichao and Wang, Yiwen and Ru, Dongyu and Yang, Yang},
    year={2024},
    url={https://arxiv.org/abs/2411.04403},
}
"""

DF_FLOPS = """
@inproceedings{porco2025alternative,
    title={An Alternative to {FLOPS} Regularization to Effectively Productionize {SPLADE}-Doc},
    author={Porco, Aldo and Mehra, Dhruv and Malioutov, Igor and Radhakrishnan, Karthik and
        Keymanesh, Moniba and Preo{\\c{t}}iuc-Pietro, Daniel and MacAvaney, Sean and Cheng, Pengxiang},
    booktitle={Proceedings of SIGIR},
    year={2025},
    url={https://arxiv.org/abs/2505.15070},
}
"""

SNRM = """
@inproceedings{zamani2018neural,
    title={From Neural Re-Ranking to Neural Ranking: Learning a Sparse Representation for Inverted Indexing},
    author={Zamani, Hamed and Dehghani, Mostafa and Croft, W. Bruce and Learned-Miller, Erik and
        Kamps, Jaap},
    booktitle={Proceedings of CIKM},
    year={2018},
    url={https://doi.org/10.1145/3269206.3271800},
}
"""
