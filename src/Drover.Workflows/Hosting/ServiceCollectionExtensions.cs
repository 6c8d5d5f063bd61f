using Drover.Workflows;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Microsoft.Extensions.DependencyInjection;

/// <summary>Adds durable workflows to a host.</summary>
public static class DroverWorkflowsServiceCollectionExtensions
{
    /// <summary>
    /// Registers a <see cref="WorkflowEngine"/> that starts and stops with the host, and its <see cref="WorkflowClient"/>.
    /// </summary>
    public static IServiceCollection AddDroverWorkflows(this IServiceCollection services, Action<WorkflowEngineOptions> configure)
    {
        ArgumentNullException.ThrowIfNull(services);
        ArgumentNullException.ThrowIfNull(configure);
        services.AddSingleton(provider =>
        {
            var options = new WorkflowEngineOptions();
            configure(options);
            ILogger<WorkflowEngine> logger = (ILogger<WorkflowEngine>?)provider.GetService(typeof(ILogger<WorkflowEngine>))
                ?? NullLogger<WorkflowEngine>.Instance;
            return new WorkflowEngine(options, provider, logger);
        });
        services.AddSingleton(provider => provider.GetRequiredService<WorkflowEngine>().Client);
        services.AddSingleton<IHostedService>(provider => new EngineService(provider.GetRequiredService<WorkflowEngine>()));
        return services;
    }

    private sealed class EngineService(WorkflowEngine engine) : IHostedService
    {
        public Task StartAsync(CancellationToken cancellationToken) => engine.StartAsync(cancellationToken);

        public Task StopAsync(CancellationToken cancellationToken) => engine.StopAsync(cancellationToken);
    }
}
