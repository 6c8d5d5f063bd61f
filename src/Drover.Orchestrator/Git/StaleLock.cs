using System.Globalization;

namespace Drover.Orchestrator.Git;

/// <summary>Removes a lock file left by a killed git, under the four conditions of G-09 and in no other case.</summary>
internal static class StaleLock
{
    /// <summary>A lock younger than this is never touched.</summary>
    public static readonly TimeSpan MinimumAge = TimeSpan.FromSeconds(10);

    /// <summary>True when the lock is gone afterwards. Takes a second when there is something to judge.</summary>
    public static async Task<bool> TryClearAsync(Repository repository, string file, TimeProvider time, CancellationToken cancellationToken)
    {
        if (!File.Exists(file))
            return true;
        if (!IsOurPlace(repository, file) || Age(file, time) < MinimumAge)
            return false;
        var first = Identity(file);
        var suspects = GitOrphans.GitsOf(repository);
        if (GitOrphans.OpenBy(file) is not null)
            return false;
        await Task.Delay(TimeSpan.FromSeconds(1), time, cancellationToken).ConfigureAwait(false);
        if (!File.Exists(file))
            return true;
        // A git that came after the first look did not make this lock; without that, many short gits of agents would keep it for ever.
        if (Identity(file) != first || GitOrphans.OpenBy(file) is not null || GitOrphans.GitsOf(repository).Overlaps(suspects))
            return false;
        File.Delete(file);
        return true;
    }

    /// <summary>What is known about a lock, for a person who has to wait for it.</summary>
    public static string Describe(Repository repository, string file) => (GitOrphans.OpenBy(file) ?? GitOrphans.GitsOf(repository).Cast<int?>().FirstOrDefault()) is { } pid
        ? $"{file} (process {pid})"
        : string.Create(CultureInfo.InvariantCulture, $"{file} (no process holds it)");

    // Refs that Drover moves and indexes of its own worktrees; the user's index.lock is never one of them. The target
    // is any branch: the caller asks only for the one it has to move. packed-refs.lock is written by deletions of task branches,
    // HEAD.lock by a move of the branch the main worktree has checked out.
    private static bool IsOurPlace(Repository repository, string file)
    {
        var relative = Path.GetRelativePath(repository.CommonDirectory, file);
        return relative is "packed-refs.lock" or "HEAD.lock"
            || (relative.StartsWith("refs/heads/", StringComparison.Ordinal) && relative.EndsWith(".lock", StringComparison.Ordinal))
            || (relative.StartsWith("refs/drover/", StringComparison.Ordinal) && relative.EndsWith(".lock", StringComparison.Ordinal))
            || (relative.StartsWith("worktrees/task-", StringComparison.Ordinal) && relative.EndsWith("/index.lock", StringComparison.Ordinal));
    }

    private static TimeSpan Age(string file, TimeProvider time) => time.GetUtcNow() - File.GetLastWriteTimeUtc(file);

    private static (DateTime Written, DateTime Created, long Length) Identity(string file)
    {
        var info = new FileInfo(file);
        return (info.LastWriteTimeUtc, info.CreationTimeUtc, info.Length);
    }
}
