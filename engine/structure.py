"""Carrying out an edit: document and world change together, and what would take it back is the answer.

An edit is checked before it gets here (or was undone here, so that it fits where it was): only starting or
bringing back a guest may still be refused by its host, and then nothing has changed.
"""

from __future__ import annotations

import msgspec

from engine.document import (
    CostsChange,
    Document,
    Edit,
    GuestAdd,
    GuestAllot,
    GuestDrop,
    GuestFork,
    GuestInflate,
    GuestRelabel,
    GuestTransfer,
    HostAdd,
    HostChange,
    HostConvert,
    HostDrop,
    HostOccupy,
    HostPromise,
    HostReplace,
    HostReschedule,
    HostRestack,
    HostShare,
    LabRelabel,
)
from engine.world import World


def perform(edit: Edit, document: Document, world: World) -> Edit:
    """Change document and world by one edit; returns the edit that takes it back."""
    inverse: Edit
    match edit:
        case HostAdd(row, guests, state):
            if state is None:
                world.add_host(row)
            else:
                world.import_host(row, guests, state)
            document.hosts[row.id] = row
            document.guests.update((guest.id, guest) for guest in guests)
            inverse = HostDrop(row.id)
        case HostDrop(host):
            guests = document.guests_on(host)
            inverse = HostAdd(document.hosts[host], guests, world.export_host(host))
            world.remove_host(host)
            del document.hosts[host]
            for guest in guests:
                del document.guests[guest.id]
        case HostChange(row):
            inverse = HostChange(document.hosts[row.id])
            document.hosts[row.id] = row
        case HostRestack(host, stack, technique, switches):
            before = document.hosts[host]
            inverse = HostRestack(host, before.stack, before.technique, before.switches)
            document.hosts[host] = row = msgspec.structs.replace(
                before, stack=stack, technique=technique, switches=switches
            )
            world.replace_host(row)
        case HostConvert(row, carry):
            inverse = HostReplace(document.hosts[row.id], world.export_host(row.id))
            world.convert_host(row, document.guests_on(row.id), carry)
            document.hosts[row.id] = row
        case HostReplace(row, state):
            inverse = HostReplace(document.hosts[row.id], world.export_host(row.id))
            guests = document.guests_on(row.id)
            world.remove_host(row.id)
            world.import_host(row, guests, state)
            document.hosts[row.id] = row
        case HostOccupy(host, percent):
            before = document.hosts[host]
            inverse = HostOccupy(host, before.host_load)
            document.hosts[host] = msgspec.structs.replace(before, host_load=percent)
            world.hosts[host].load_percent = percent
        case HostReschedule(host, scheduler):
            before = document.hosts[host]
            inverse = HostReschedule(host, before.scheduler)
            document.hosts[host] = msgspec.structs.replace(before, scheduler=scheduler)
            world.hosts[host].set_scheduler(scheduler)
        case HostShare(host, share_pages):
            before = document.hosts[host]
            inverse = HostShare(host, before.share_pages)
            document.hosts[host] = msgspec.structs.replace(before, share_pages=share_pages)
            world.hosts[host].set_page_sharing(share_pages)
        case HostPromise(host, overcommit):
            before = document.hosts[host]
            inverse = HostPromise(host, before.overcommit)
            world.hosts[host].set_overcommit(overcommit)
            document.hosts[host] = msgspec.structs.replace(before, overcommit=overcommit)
        case GuestAllot(guest, weight, cap):
            allotted = document.guests[guest]
            inverse = GuestAllot(guest, allotted.weight, allotted.cap)
            document.guests[guest] = allotted = msgspec.structs.replace(allotted, weight=weight, cap=cap)
            world.set_share(allotted)
        case GuestInflate(guest, balloon_mib):
            row = document.guests[guest]
            inverse = GuestInflate(guest, row.balloon_mib)
            document.guests[guest] = row = msgspec.structs.replace(row, balloon_mib=balloon_mib)
            world.set_balloon(row)
        case CostsChange(costs):
            inverse = CostsChange(document.costs)
            document.costs = costs
            world.set_costs(costs)
        case GuestAdd(row, state):
            if state is None:
                world.add_guest(row)
            else:
                world.import_guest(row, state)
            document.guests[row.id] = row
            inverse = GuestDrop(row.id)
        case GuestFork(row, original):
            world.clone_guest(row, original)
            document.guests[row.id] = row
            inverse = GuestDrop(row.id)
        case GuestDrop(guest):
            inverse = GuestAdd(document.guests[guest], world.export_guest(guest))
            world.remove_guest(guest)
            del document.guests[guest]
        case GuestTransfer(guest, host):
            row = document.guests[guest]
            inverse = GuestTransfer(guest, row.host)
            moved = msgspec.structs.replace(row, host=host)
            world.move_guest(moved)
            document.guests[guest] = moved
        case GuestRelabel(guest, name):
            inverse = GuestRelabel(guest, document.guests[guest].name)
            document.guests[guest] = msgspec.structs.replace(document.guests[guest], name=name)
        case LabRelabel(name):
            inverse = LabRelabel(document.name)
            document.name = name
    document.hosts = dict(sorted(document.hosts.items()))
    document.guests = dict(sorted(document.guests.items()))
    return inverse
