using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.CodingAgents;
using Drover.Orchestrator.Git;
using Drover.Workflows;
using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Runs;

/// <summary>
/// One run per repository: a lock that the kernel frees however the process ends. Who holds it is told from the
/// executors' rows; correctness does not rest on it but on the fence of each write.
/// </summary>
internal sealed class RunLock : IDisposable
{
    private readonly FileStream _file;

    private RunLock(FileStream file) => _file = file;

    /// <exception cref="DroverException">Conflict: another run holds the repository; names its pid and whether it is stopped.</exception>
    public static async Task<RunLock> TakeAsync(Repository repository, RunHostOptions options, CancellationToken cancellationToken)
    {
        Posix.CreatePrivate(repository.StateDirectory);
        string path = Path.Combine(repository.StateDirectory, "run.lock");
        try
        {
            // FileShare.None is an exclusive, close-on-exec flock; the folder is private.
            return new RunLock(new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None));
        }
        catch (IOException)
        {
            string holder = await HolderAsync(options, cancellationToken).ConfigureAwait(false);
            throw new DroverException(ErrorCode.Conflict, $"another run works in this repository, {holder}: watch it with `drover status --watch`, or end it first");
        }
    }

    private static async Task<string> HolderAsync(RunHostOptions options, CancellationToken cancellationToken)
    {
        List<ProcessIdentity> executors;
        try
        {
            executors = await options.Dialect.ReadAsync(options.Time, db => db.Query("""
                SELECT boot_id, pid_namespace, pid, start_ticks FROM {d}executors WHERE application = @app AND taken_over_by IS NULL ORDER BY started_at DESC
                """, r => new ProcessIdentity(r.GetString(0), r.GetString(1), (int)r.GetInt64(2), r.GetInt64(3)),
                ("@app", Protocol.Application(options.Settings.Project))), cancellationToken).ConfigureAwait(false);
        }
        catch (DroverException e) when (e.Code == ErrorCode.Database)
        {
            // The holder has not made its tables yet.
            executors = [];
        }
        foreach (ProcessIdentity identity in executors)
        {
            switch (identity.Look())
            {
                case ProcessPresence.Running:
                    return $"held by pid {identity.Pid}";
                case ProcessPresence.Stopped:
                    return $"held by pid {identity.Pid}, stopped (`kill -CONT {identity.Pid}` lets it go on)";
            }
        }
        return "which is just starting or ending";
    }

    public void Dispose() => _file.Dispose();
}
