"""Campaigns: many recorded training runs under many balancers, resumable, in one table.

Needs torch only in the processes that train.
"""

from __future__ import annotations

from gabactl.nn.campaigns.driver import CampaignStatus, campaign_status, run_campaign
from gabactl.nn.campaigns.files import COLUMNS
from gabactl.nn.campaigns.plan import Campaign, PlannedRun, load_campaign
from gabactl.nn.campaigns.table import CampaignResults, collect_results, load_results, save_results

__all__ = [
    "COLUMNS",
    "Campaign",
    "CampaignResults",
    "CampaignStatus",
    "PlannedRun",
    "campaign_status",
    "collect_results",
    "load_campaign",
    "load_results",
    "run_campaign",
    "save_results",
]
