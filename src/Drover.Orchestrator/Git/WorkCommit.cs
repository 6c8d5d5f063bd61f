using System.Buffers.Binary;
using System.Text;
using Drover.Workflows;

namespace Drover.Orchestrator.Git;

/// <summary>An attempt's work as one commit, anchored at <c>refs/drover/attempts/…</c>.</summary>
/// <param name="Oid">The commit.</param>
/// <param name="Tree">Its tree: exactly the files that were in the worktree, less what <paramref name="Findings"/> names.</param>
/// <param name="Changes">Paths that differ from the base.</param>
/// <param name="IsNoOp">True when nothing differs from the base.</param>
/// <param name="Findings">Reasons to wait for a person; empty = land.</param>
internal sealed record Work(string Oid, string Tree, IReadOnlyList<TreeChange> Changes, bool IsNoOp, IReadOnlyList<Finding> Findings);

/// <summary>What the work commit says and builds on; every field is the caller's, so that repeating gives the same commit.</summary>
internal sealed record WorkRequest
{
    /// <summary>Subject and body. Lines that look like a Drover trailer are removed.</summary>
    public required string Message { get; init; }

    public required GitIdentity Identity { get; init; }

    /// <summary>Written as author and committer date, whole seconds, UTC.</summary>
    public required DateTimeOffset Date { get; init; }

    public FindingLimits Limits { get; init; } = new();

    /// <summary>The turn this work ends, when it was one that solved a conflict.</summary>
    public ConflictTurn? Turn { get; init; }
}

/// <summary>Turns what an agent left in its worktree into a commit, without asking the agent's own index or configuration.</summary>
internal sealed class WorkCommit(Repository repository, TimeProvider time)
{
    private GitClient Git => repository.Git;

    /// <summary>
    /// Commits the worktree's files. The agent must have ended. Commits the agent made stay as parents. Repeating it on the
    /// same files gives the same commit. 8 git processes when nothing is unusual.
    /// </summary>
    public async Task<Work> CreateAsync(Worktree worktree, WorkRequest request, CancellationToken cancellationToken)
    {
        var name = worktree.Name;
        if (!Directory.Exists(worktree.Path))
            throw new DroverException(ErrorCode.Conflict, $"{worktree.Path} was deleted while the agent ran; its commits are on {name.Branch}, start the attempt again");
        await GitOrphans.WaitGoneAsync(worktree.Path, time, cancellationToken).ConfigureAwait(false);
        // The index Drover wrote at checkout, not the agent's: an agent's can hide changes (assume-unchanged, skip-worktree).
        var scope = await worktree.SeededAsync(repository, "work", worktree.BaseOid, cancellationToken).ConfigureAwait(false);
        var index = scope.IndexFile!;
        var baseFiles = CountEntries(index);
        var found = await RefsAsync(worktree, request, cancellationToken).ConfigureAwait(false);
        var nested = new List<string>();
        foreach (var path in await Staging.AddAllAsync(repository, scope, cancellationToken).ConfigureAwait(false))
            nested.Add(path);
        GitCrash.Point("work.staged");
        var (tree, changes) = await TreeAsync(scope, found.BaseTree, nested, cancellationToken).ConfigureAwait(false);
        var findings = await Findings.JudgeAsync(repository, worktree.Path, changes, baseFiles, request.Limits, cancellationToken).ConfigureAwait(false);
        AddNested(worktree, nested, findings);
        await AddNewlyIgnoredAsync(scope, worktree.BaseOid, changes, findings, cancellationToken).ConfigureAwait(false);
        if (request.Turn is { } turn)
            await AddMarkersAsync(tree, turn, findings, cancellationToken).ConfigureAwait(false);
        var oid = await CommitAsync(worktree, request, tree, found, cancellationToken).ConfigureAwait(false);
        Posix.CopyAtomic(index, worktree.SeedIndex(repository));
        // The agent's next turn sees its own work as committed.
        if (Checkouts.Head(worktree.GitDirectory).Branch == name.Branch && Directory.Exists(worktree.GitDirectory))
            File.Move(index, Path.Combine(worktree.GitDirectory, "index"), overwrite: true);
        return new Work(oid, tree, changes, tree == found.BaseTree, findings);
    }

    /// <summary>Removes lines that could be taken for Drover's own trailers, and control characters.</summary>
    public static string CleanMessage(string message)
    {
        var lines = message.ReplaceLineEndings("\n").Split('\n')
            .Where(l => !l.TrimStart().StartsWith("drover-", StringComparison.OrdinalIgnoreCase))
            .Select(l => new string([.. l.Select(c => char.IsControl(c) && c != '\t' ? ' ' : c)]).TrimEnd());
        var text = string.Join('\n', lines).Trim();
        return text.Length == 0 ? "Work" : text;
    }

    private sealed record Found(string BaseTree, string? Attempt, string? AttemptTree, string? Branch, IReadOnlyList<string> Parents);

    // "DIRC", version, number of entries: each four bytes, big-endian.
    private static int CountEntries(string index)
    {
        var header = new byte[12];
        using var file = File.OpenRead(index);
        file.ReadExactly(header);
        return (int)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(8));
    }

    private async Task<Found> RefsAsync(Worktree worktree, WorkRequest request, CancellationToken cancellationToken)
    {
        var name = worktree.Name;
        var head = Checkouts.Head(worktree.GitDirectory);
        // On somebody else's branch the tip says nothing about these files, it may have moved on; what was last checked out or
        // committed here is in this worktree's own log.
        var detached = head.Branch == name.Branch ? null : head.Oid ?? Checkouts.HeadLog(worktree.GitDirectory).Select(Checkouts.NewOid).LastOrDefault(o => o is not null);
        if (detached is not { Length: 40 } || !detached.All(char.IsAsciiHexDigitLower))
            detached = null;
        var from = request.Turn?.Tip ?? worktree.BaseOid;
        var answer = await repository.ResolveAsync([from + "^{tree}", name.AttemptRef + "^{commit}", name.AttemptRef + "^{tree}",
            name.Branch + "^{commit}", (detached ?? name.Branch) + "^{commit}"], cancellationToken).ConfigureAwait(false);
        var baseTree = answer[0] ?? throw new DroverException(ErrorCode.NotFound, $"base commit {from} of {name.Key} is not in {repository.Root} any more");
        var parents = new List<string>();
        foreach (var tip in ((string?[])[answer[3], answer[4], answer[1]]).OfType<string>().Distinct().Where(t => t != worktree.BaseOid))
        {
            if (!await repository.IsAncestorAsync(worktree.BaseOid, tip, cancellationToken).ConfigureAwait(false))
                await Snapshot.AnchorAsync(repository, name, [tip], time, cancellationToken).ConfigureAwait(false);
            else if (!await AnyDescendsAsync(parents, tip, cancellationToken).ConfigureAwait(false))
                parents.Add(tip);
        }
        if (parents is [var one, var two] && await repository.IsAncestorAsync(one, two, cancellationToken).ConfigureAwait(false))
            parents = [two];
        // The commit that holds the conflict markers is scaffolding; both sides it joined are the parents, if nobody built on it.
        if (request.Turn is { } turn && parents is [var only] && only == turn.Scaffold)
            parents = [turn.Work, turn.Tip];
        return new Found(baseTree, answer[1], answer[2], answer[3], parents.Count == 0 ? [worktree.BaseOid] : parents);
    }

    private async Task<bool> AnyDescendsAsync(List<string> parents, string tip, CancellationToken cancellationToken)
    {
        foreach (var parent in parents)
        {
            if (await repository.IsAncestorAsync(tip, parent, cancellationToken).ConfigureAwait(false))
                return true;
        }
        return false;
    }

    private async Task<(string Tree, IReadOnlyList<TreeChange> Changes)> TreeAsync(GitScope scope, string baseTree, List<string> nested, CancellationToken cancellationToken)
    {
        while (true)
        {
            var tree = (await Git.RunAsync(scope, ["write-tree"], cancellationToken).ConfigureAwait(false)).Text;
            GitCrash.Point("work.tree");
            IReadOnlyList<TreeChange> changes = tree == baseTree ? [] : await Staging.DiffAsync(repository, baseTree, tree, renames: true, cancellationToken).ConfigureAwait(false);
            var links = changes.Where(c => c.NewMode == "160000").Select(c => c.Path).ToList();
            if (links.Count == 0)
                return (tree, changes);
            // A gitlink would keep an id and lose the files; it is taken out again and reported.
            nested.AddRange(links);
            await Git.RunAsync(scope, ["update-index", "--force-remove", "-z", "--stdin"], Encoding.UTF8.GetBytes(string.Concat(links.Select(l => l + "\0"))), cancellationToken).ConfigureAwait(false);
        }
    }

    private static void AddNested(Worktree worktree, List<string> nested, List<Finding> findings)
    {
        var odd = nested.Where(Findings.LooksLikeGit).ToList();
        if (odd.Count > 0)
            findings.Add(Findings.Make(FindingKind.GitLikePath, odd, "path that looks like .git, not part of the commit"));
        var unread = nested.Except(odd).Where(p => !Posix.Exists(Path.Combine(worktree.Path, p, ".git"))).ToList();
        if (unread.Count > 0)
            findings.Add(Findings.Make(FindingKind.Unreadable, unread, "cannot be read by git, its content is not part of the commit"));
        foreach (var folder in nested.Except(odd).Except(unread).Order(StringComparer.Ordinal))
        {
            var at = Path.Combine(worktree.Path, folder);
            var options = new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = FileAttributes.ReparsePoint, IgnoreInaccessible = true };
            var files = Directory.EnumerateFiles(at, "*", options).Select(f => Path.GetRelativePath(worktree.Path, f))
                .Where(f => !f.StartsWith(folder + "/.git/", StringComparison.Ordinal) && f != folder + "/.git").Take(200).Order(StringComparer.Ordinal);
            findings.Add(Findings.Make(FindingKind.NestedRepository, [folder, .. files], "repository inside the worktree, not part of the commit"));
        }
    }

    // Files hidden by a rule that the base's ignore files do not have. Asked only when an ignore file changed.
    private async Task AddNewlyIgnoredAsync(GitScope scope, string baseOid, IReadOnlyList<TreeChange> changes, List<Finding> findings, CancellationToken cancellationToken)
    {
        var rules = changes.Where(c => c.Status != 'D' && (c.Path == ".gitignore" || c.Path.EndsWith("/.gitignore", StringComparison.Ordinal))).Select(c => c.Path).ToList();
        if (rules.Count == 0)
            return;
        var list = await Git.RunAsync(scope, ["ls-files", "-o", "-i", "--exclude-standard", "--directory", "-z"], cancellationToken).ConfigureAwait(false);
        if (list.Output.Length == 0)
            return;
        var before = await Preflight.BlobsAsync(repository, [.. rules.Select(r => $"{baseOid}:{r}")], cancellationToken).ConfigureAwait(false);
        var known = rules.Zip(before).ToDictionary(p => p.First, p => Encoding.UTF8.GetString(p.Second ?? []).Split('\n').Select(l => l.TrimEnd('\r')).ToHashSet());
        var why = await Git.TryAsync(scope, ["check-ignore", "-v", "-z", "--stdin", "--no-index"], list.Output, cancellationToken).ConfigureAwait(false);
        var fields = why.Fields();
        var hidden = new List<string>();
        // <source> NUL <line> NUL <pattern> NUL <path> NUL
        for (var i = 0; i + 3 < fields.Length; i += 4)
        {
            if (known.TryGetValue(fields[i], out var lines) && !lines.Contains(fields[i + 2]))
                hidden.Add(fields[i + 3]);
        }
        if (hidden.Count > 0)
            findings.Add(Findings.Make(FindingKind.NewlyIgnored, hidden, "hidden by an ignore rule this attempt added, not part of the commit"));
    }

    private async Task AddMarkersAsync(string tree, ConflictTurn turn, List<Finding> findings, CancellationToken cancellationToken)
    {
        var blobs = await Preflight.BlobsAsync(repository, [.. turn.Paths.Where(p => !p.Contains('\n', StringComparison.Ordinal)).Select(p => $"{tree}:{p}")], cancellationToken).ConfigureAwait(false);
        var left = turn.Paths.Where(p => !p.Contains('\n', StringComparison.Ordinal))
            .Where((_, i) => blobs[i] is { } blob && (blob.AsSpan().StartsWith("<<<<<<< "u8) || blob.AsSpan().IndexOf("\n<<<<<<< "u8) >= 0)).ToList();
        if (left.Count > 0)
            findings.Add(Findings.Make(FindingKind.ConflictMarker, left, "conflict markers left in"));
    }

    private async Task<string> CommitAsync(Worktree worktree, WorkRequest request, string tree, Found found, CancellationToken cancellationToken)
    {
        var name = worktree.Name;
        string oid;
        // Made before, and the branch moved on to it: nothing is new.
        if (found.Attempt is { } done && found.AttemptTree == tree && found.Parents is [var parent] && parent == done)
        {
            oid = done;
        }
        else
        {
            List<string> arguments = ["commit-tree", tree];
            foreach (var p in found.Parents)
                arguments.AddRange(["-p", p]);
            var message = $"{CleanMessage(request.Message)}\n\nDrover-Work: {name.Trailer}\n";
            var scope = HermeticGit.As(repository.Hermetic.Scope(), request.Identity, request.Date);
            oid = (await Git.RunAsync(scope, arguments, Encoding.UTF8.GetBytes(message), cancellationToken).ConfigureAwait(false)).Text;
            GitCrash.Point("work.commit");
        }
        // One after the other: git moves several refs together only until it is killed (fact 6), and the anchor comes first.
        if (found.Attempt != oid)
            await Refs.MustMoveAsync(repository, name.AttemptRef, oid, found.Attempt, time, cancellationToken).ConfigureAwait(false);
        GitCrash.Point("work.anchor");
        if (found.Branch is { } branch && branch != oid)
            await Refs.MustMoveAsync(repository, name.Branch, oid, branch, time, cancellationToken).ConfigureAwait(false);
        GitCrash.Point("work.anchored");
        return oid;
    }
}
