using System.Text;

namespace Drover.Orchestrator.Git;

/// <summary>
/// The parts of a checkout update that work on single paths: what may be overwritten before it, and finishing one that was
/// cut off (G-06). A path's bytes are ours when they equal the old or the new content, are missing, or are the beginning of the
/// new content; everything else is the user's and stays.
/// </summary>
internal sealed class CheckoutRepair(Repository repository)
{
    private GitClient Git => repository.Git;

    /// <summary>The index under construction, beside the real one so that a rename replaces it.</summary>
    public static string CopyOf(string gitDirectory) => Path.Combine(gitDirectory, "drover-sync-index");

    /// <summary>Takes the checkout's <c>index.lock</c>; false when somebody has it. The file appears complete, nonce included.</summary>
    public static bool TryLock(SyncJournal journal)
    {
        var temp = Path.Combine(journal.GitDirectory, "drover-lock-" + journal.Nonce);
        File.WriteAllText(temp, Content(journal));
        var taken = Posix.TryLink(temp, LockFile(journal));
        File.Delete(temp);
        return taken;
    }

    /// <summary>True when the lock that exists is the one of this journal.</summary>
    public static bool HoldsLock(SyncJournal journal)
    {
        try
        {
            return new FileInfo(LockFile(journal)) is { Exists: true, Length: < 200 } && File.ReadAllText(LockFile(journal)) == Content(journal);
        }
        catch (IOException)
        {
            // Gone between the two looks: then it was not ours, nobody else removes ours.
            return false;
        }
    }

    /// <summary>Removes the lock when it is this journal's, and the temporary file it was made from.</summary>
    public static void Unlock(SyncJournal journal)
    {
        if (!Directory.Exists(journal.GitDirectory))
            return;
        File.Delete(Path.Combine(journal.GitDirectory, "drover-lock-" + journal.Nonce));
        if (HoldsLock(journal))
            File.Delete(LockFile(journal));
    }

    /// <summary>Files on disk that a new path would overwrite although no tree has them; git itself spares only those not ignored.</summary>
    public static IReadOnlyList<string> InTheWay(string root, IReadOnlyList<TreeChange> changes)
    {
        var deleted = changes.Where(c => c.Status == 'D').Select(c => c.Path).ToHashSet(StringComparer.Ordinal);
        var result = new SortedSet<string>(StringComparer.Ordinal);
        foreach (var path in changes.Where(c => c.Status == 'A').Select(c => c.Path))
        {
            for (var at = path.IndexOf('/', StringComparison.Ordinal); at > 0; at = path.IndexOf('/', at + 1))
            {
                var parent = path[..at];
                var full = Path.Combine(root, parent);
                if ((File.Exists(full) || new FileInfo(full).LinkTarget is not null) && !deleted.Contains(parent))
                    result.Add(parent);
            }
            var file = Path.Combine(root, path);
            if (new FileInfo(file) is { } info && (info.LinkTarget is not null || info.Exists))
                result.Add(path);
            else if (Directory.Exists(file))
                result.UnionWith(Directory.EnumerateFiles(file, "*", new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = 0, IgnoreInaccessible = true })
                    .Select(f => Path.GetRelativePath(root, f)).Where(f => !deleted.Contains(f)));
        }
        return [.. result];
    }

    /// <summary>Brings files and the index copy to the new commit, path by path. Returns the paths left to the user.</summary>
    public async Task<IReadOnlyList<string>> RepairPathsAsync(SyncJournal journal, IReadOnlyList<TreeChange> changes, CancellationToken cancellationToken)
    {
        var work = Path.Combine(repository.StateDirectory, "git", "sync");
        Posix.Delete(work);
        var oldFiles = Path.Combine(work, "old");
        var newFiles = Path.Combine(work, "new");
        await MaterialiseAsync(journal.Old, changes.Select(c => (c.OldMode, c.OldOid, c.Path)), oldFiles, cancellationToken).ConfigureAwait(false);
        await MaterialiseAsync(journal.New, changes.Select(c => (c.NewMode, c.NewOid, c.Path)), newFiles, cancellationToken).ConfigureAwait(false);
        var left = new SortedSet<string>(StringComparer.Ordinal);
        // Deletions first: a folder may have to make room for a file.
        foreach (var change in changes.OrderBy(c => c.Status == 'D' ? 0 : 1))
        {
            if (!RepairFile(journal.Path, change.Path, oldFiles, newFiles))
                left.Add(change.Path);
        }
        await RepairIndexAsync(journal, changes, left, cancellationToken).ConfigureAwait(false);
        Posix.Delete(work);
        return [.. left];
    }

    private static string LockFile(SyncJournal journal) => Path.Combine(journal.GitDirectory, "index.lock");

    private static string Content(SyncJournal journal) => $"drover {journal.Nonce}\n";

    // Writes paths as a checkout would, line ends and links included, into a folder of its own.
    private async Task MaterialiseAsync(string commit, IEnumerable<(string Mode, string Oid, string Path)> entries, string folder, CancellationToken cancellationToken)
    {
        Posix.CreatePrivate(folder);
        var index = folder + ".index";
        var scope = repository.Hermetic.Scope(folder, index);
        var all = await Git.RunAsync(scope, ["ls-tree", "-r", "-z", "--full-tree", commit], cancellationToken).ConfigureAwait(false);
        var input = new StringBuilder();
        // Attribute files decide about line ends of the others.
        foreach (var line in all.Fields().Where(l => l.EndsWith("\t.gitattributes", StringComparison.Ordinal) || l.EndsWith("/.gitattributes", StringComparison.Ordinal)))
            input.Append(line).Append('\0');
        foreach (var (mode, oid, path) in entries.Where(e => e.Mode is not "000000" and not "160000"))
            input.Append(mode).Append(' ').Append(oid).Append('\t').Append(path).Append('\0');
        await Git.RunAsync(scope, ["update-index", "-z", "--index-info"], Encoding.UTF8.GetBytes(input.ToString()), cancellationToken).ConfigureAwait(false);
        await Git.RunAsync(scope, ["checkout-index", "-a", "-f"], cancellationToken).ConfigureAwait(false);
    }

    private static bool RepairFile(string root, string path, string oldFiles, string newFiles)
    {
        var disk = Path.Combine(root, path);
        var wanted = Path.Combine(newFiles, path);
        var hasNew = IsFile(wanted);
        // Never through a link or file of the user that stands where a folder was.
        for (var at = path.IndexOf('/', StringComparison.Ordinal); at > 0; at = path.IndexOf('/', at + 1))
        {
            if (IsFile(Path.Combine(root, path[..at])))
                return !hasNew;
        }
        if (Directory.Exists(disk) && new DirectoryInfo(disk).LinkTarget is null)
        {
            // Deleted in the new commit and a folder is here: the user's, or already right.
            if (!hasNew)
                return true;
            if (Directory.EnumerateFileSystemEntries(disk).Any())
                return false;
            Directory.Delete(disk);
        }
        if (!IsFile(disk) || Same(disk, Path.Combine(oldFiles, path)) || (hasNew && (Same(disk, wanted) || IsBeginning(disk, wanted))))
            return hasNew ? Write(root, path, wanted) : Remove(root, path);
        return false;
    }

    private static bool Write(string root, string path, string wanted)
    {
        var disk = Path.Combine(root, path);
        var folder = root;
        foreach (var part in path.Split('/').SkipLast(1))
        {
            folder = Path.Combine(folder, part);
            if (IsFile(folder))
                return false;
            Directory.CreateDirectory(folder);
        }
        var temp = Path.Combine(folder, $".drover-{Guid.NewGuid():N}");
        if (new FileInfo(wanted).LinkTarget is { } target)
            File.CreateSymbolicLink(temp, target);
        else if (IsFile(disk) && Same(disk, wanted))
            return SameMode(disk, wanted);
        else
            File.Copy(wanted, temp);
        File.Move(temp, disk, overwrite: true);
        return true;
    }

    private static bool SameMode(string disk, string wanted)
    {
        Posix.SetExecutable(disk, Posix.IsExecutable(wanted));
        return true;
    }

    private static bool Remove(string root, string path)
    {
        File.Delete(Path.Combine(root, path));
        // As git does: folders that became empty go too.
        for (var folder = Path.GetDirectoryName(path); !string.IsNullOrEmpty(folder); folder = Path.GetDirectoryName(folder))
        {
            var full = Path.Combine(root, folder);
            if (!Directory.Exists(full))
                continue;
            if (new DirectoryInfo(full).LinkTarget is not null || Directory.EnumerateFileSystemEntries(full).Any())
                break;
            Directory.Delete(full);
        }
        return true;
    }

    private async Task RepairIndexAsync(SyncJournal journal, IReadOnlyList<TreeChange> changes, SortedSet<string> left, CancellationToken cancellationToken)
    {
        var copy = CopyOf(journal.GitDirectory);
        var index = Path.Combine(journal.GitDirectory, "index");
        File.Delete(copy + ".lock");
        var written = File.GetLastWriteTimeUtc(index);
        // The user's index is unchanged as long as the lock is ours; whatever a killed git left in the copy is replaced.
        File.Copy(index, copy + ".fresh", overwrite: true);
        File.SetLastWriteTimeUtc(copy + ".fresh", written);
        File.Move(copy + ".fresh", copy, overwrite: true);
        var scope = repository.Hermetic.Scope(journal.Path, copy);
        var entries = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var line in (await Git.RunAsync(scope, ["ls-files", "-s", "-z"], cancellationToken).ConfigureAwait(false)).Fields())
        {
            // "<mode> <oid> <stage>\t<path>"
            var tab = line.IndexOf('\t', StringComparison.Ordinal);
            entries[line[(tab + 1)..]] = line[..tab];
        }
        var input = new StringBuilder();
        foreach (var change in changes)
        {
            var entry = entries.GetValueOrDefault(change.Path) ?? "000000 " + new string('0', 40) + " 0";
            if (entry == $"{change.OldMode} {change.OldOid} 0")
                input.Append(change.Status == 'D' ? "0" : change.NewMode).Append(' ').Append(change.NewOid).Append('\t').Append(change.Path).Append('\0');
            else if (entry != $"{change.NewMode} {change.NewOid} 0")
                left.Add(change.Path);
        }
        if (input.Length > 0)
            await Git.RunAsync(scope, ["update-index", "-z", "--index-info"], Encoding.UTF8.GetBytes(input.ToString()), cancellationToken).ConfigureAwait(false);
        // Exit 1 only says that a file differs from the index, which is right for those left to the user.
        await Git.TryAsync(scope, ["update-index", "-q", "--refresh"], default, cancellationToken).ConfigureAwait(false);
    }

    private static bool IsFile(string path) => new FileInfo(path) is { } info && (info.Exists || info.LinkTarget is not null);

    private static bool Same(string one, string two)
    {
        if (!IsFile(one) || !IsFile(two))
            return false;
        var (a, b) = (new FileInfo(one), new FileInfo(two));
        if (a.LinkTarget is not null || b.LinkTarget is not null)
            return a.LinkTarget == b.LinkTarget;
        return a.Length == b.Length && File.ReadAllBytes(one).AsSpan().SequenceEqual(File.ReadAllBytes(two));
    }

    private static bool IsBeginning(string disk, string wanted)
    {
        var (a, b) = (new FileInfo(disk), new FileInfo(wanted));
        return a.LinkTarget is null && b.LinkTarget is null && a.Length < b.Length
            && File.ReadAllBytes(wanted).AsSpan().StartsWith(File.ReadAllBytes(disk));
    }
}
